// Drop, paste and camera: each hands its files to the page's one uploader.
window.lookalike = {
  start(uploaderId, dropId) {
    const uploader = () => getElement(uploaderId).$refs.qRef;
    const pictures = (list) =>
      [...list].filter((file) => file.type.startsWith("image/") || /\.(hei[cf]|avif)$/i.test(file.name));
    const add = (list) => {
      const files = pictures(list);
      if (files.length) uploader().addFiles(files);
      else if (list.length) emitEvent("lookalike_no_picture");
    };
    this.add = add;
    const zone = document.getElementById("c" + dropId);
    zone.addEventListener("click", () => uploader().pickFiles());
    const mark = (event, on) => {
      event.preventDefault();
      zone.classList.toggle("over", on);
    };
    window.addEventListener("dragover", (event) => mark(event, true));
    window.addEventListener("dragleave", (event) => mark(event, false));
    window.addEventListener("drop", (event) => {
      mark(event, false);
      if (event.dataTransfer) add(event.dataTransfer.files);
    });
    window.addEventListener("paste", (event) => {
      if (event.clipboardData && event.clipboardData.files.length) {
        event.preventDefault();
        add(event.clipboardData.files);
      }
    });
  },
  // A film plays by itself, silently, unless the visitor asked the system for less motion.
  play(filmId) {
    const film = document.getElementById("c" + filmId);
    if (!film) return;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (film.dataset.film) {  // a GIF, which nothing stops: shown when it is asked for
      const show = () => { film.src = film.dataset.film; };
      if (calm) film.addEventListener("click", show, { once: true });
      else show();
      return;
    }
    film.muted = true;
    if (!calm) film.play().catch(() => {});
  },
  async openCamera(videoId) {
    const video = document.getElementById("c" + videoId);
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "user", width: { ideal: 1280 } },
      });
      video.srcObject = this.stream;
      await video.play();
      return true;
    } catch {
      this.closeCamera();
      return false;
    }
  },
  async shoot(videoId) {
    const video = document.getElementById("c" + videoId);
    if (!video.videoWidth) return false;
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    this.closeCamera();
    this.add([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
    return true;
  },
  closeCamera() {
    if (this.stream) this.stream.getTracks().forEach((track) => track.stop());
    this.stream = null;
  },
};
