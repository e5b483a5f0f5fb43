// What needs no answer is done here; the rest is told to the program, photos are sent one by one.
window.lookalike = {
  files: {},
  sent: Promise.resolve(),

  tell(...what) {
    emitEvent("lookalike", ...what);
  },

  // The toolkit's own words, in the visitor's language.
  speak(language, ...words) {
    document.documentElement.lang = language;
    document.addEventListener("DOMContentLoaded", () => {
      document.querySelectorAll(".nicegui-error-popup span").forEach((one, at) => { one.textContent = words[at] ?? ""; });
    });
  },

  // Photos

  add(list) {
    const described = [...list].map((file, at) => {
      const key = `${Date.now()}.${Math.random()}.${at}`;
      this.files[key] = file;
      return { key, name: file.name, size: file.size, type: file.type, preview: URL.createObjectURL(file) };
    });
    if (described.length) this.tell("add", described);
  },
  send(keys) {
    for (const key of keys) this.sent = this.sent.then(() => this.post(key));
  },
  async post(key) {
    const body = this.files[key];
    delete this.files[key];
    for (const pause of [0, 1000, 4000]) {
      await new Promise((done) => setTimeout(done, pause));
      try {
        const response = await fetch(`photos/${key}`, { method: "POST", body });
        if (response.ok) return;
        if (response.status < 500) break;
      } catch {} // the network: once more
    }
    this.tell("lost", key);
  },

  // What buttons do here

  pick() {
    document.getElementById("files").click();
  },
  toggle(button) {
    const panel = document.getElementById(button.getAttribute("aria-controls"));
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", !panel.hidden);
  },
  theme(button) {
    const theme = button.dataset.theme;
    localStorage.setItem("theme", theme);
    document.documentElement.dataset.theme = theme;
    document.querySelector(theme === "dark" ? ".to-light" : ".to-dark").focus();
  },
  large({ dataset, firstElementChild }) {
    const dialog = document.getElementById("large");
    const [image, box] = [dialog.querySelector("img"), dialog.querySelector(".box")];
    image.src = dataset.src;
    image.alt = dataset.alt ?? firstElementChild.alt;
    box.hidden = !dataset.box;
    const [x, y, w, h] = (dataset.box ?? "").split(" ").map((share) => `${100 * share}%`);
    Object.assign(box.style, { left: x, top: y, width: w, height: h });
    dialog.showModal();
  },
  close(button) {
    button.closest("dialog").close();
  },
  // What leaves the page says whose face is whose, and who found them.
  async labelled(card, { you, wordsFrom }) {
    const picture = await createImageBitmap(card);
    const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
    const paper = canvas.getContext("2d");
    paper.drawImage(picture, 0, 0);
    const size = picture.width / 30;
    paper.font = `600 ${size}px system-ui, "Noto Sans", sans-serif`;
    paper.textBaseline = "middle";
    const y = (Number(wordsFrom) || picture.height) - 2.4 * size;
    const label = (text, x, width) => {
      paper.fillStyle = "rgb(15 17 22 / 72%)";
      paper.beginPath();
      paper.roundRect(x, y, width, 1.7 * size, 0.85 * size);
      paper.fill();
      paper.fillStyle = "#fff";
      paper.fillText(text, x + 0.7 * size, y + 0.9 * size);
    };
    const width = (text) => paper.measureText(text).width + 1.4 * size;
    label(you, 0.7 * size, width(you));
    label("Lookalike", picture.width - 0.7 * size - width("Lookalike"), width("Lookalike"));
    return new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.92); });
  },
  async share({ dataset }) {
    let blob = await (await fetch(dataset.src)).blob();
    if (dataset.you) blob = await this.labelled(blob, dataset);
    const file = new File([blob], dataset.name, { type: blob.type });
    try {
      if (navigator.canShare?.({ files: [file] })) return await navigator.share({ files: [file] });
    } catch (problem) {
      if (problem.name === "AbortError") return;
    }
    const link = Object.assign(document.createElement("a"), { download: dataset.name });
    link.href = URL.createObjectURL(blob);
    link.click();
  },
  async camera() {
    const dialog = document.getElementById("camera");
    const files = document.getElementById("files");
    if (!navigator.mediaDevices) { // a page that did not come over https
      files.setAttribute("capture", "user");
      files.click();
      return files.removeAttribute("capture");
    }
    try {
      dialog.showModal();
      const video = { facingMode: "user", width: { ideal: 1280 } };
      this.stream = await navigator.mediaDevices.getUserMedia({ video });
      if (!dialog.open) return this.stopCamera();
      dialog.querySelector("video").srcObject = this.stream;
    } catch {
      dialog.close();
      this.tell("no_camera");
    }
  },
  async shoot(button) {
    const video = button.closest("dialog").querySelector("video");
    if (!video.videoWidth) return;
    const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    this.close(button);
    this.add([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
  },
  stopCamera() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
  },

  // What the program has done here

  reveal(id) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    document.getElementById("c" + id)?.closest("article").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  },
  // A part was drawn anew: the focus goes back to what has the same purpose, else to its beginning.
  settle(id, shownId) {
    const part = document.getElementById("c" + id);
    if (!part) return;
    part.querySelectorAll(".busy").forEach((busy) => {
      busy.disabled = false;
      busy.classList.remove("busy");
    });
    if (document.activeElement === document.body && this.purpose) {
      const same = [...part.querySelectorAll("[data-do]")].find((one) => purposeOf(one) === this.purpose);
      const start = shownId ? part.querySelector("h2") ?? part.querySelector("button") : null;
      (same ?? start)?.focus({ preventScroll: true });
    }
    document.getElementById("c" + shownId)?.scrollIntoView({ block: "nearest" });
  },
  // A film plays by itself, silently, unless the visitor asked the system for less motion.
  play(film) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (film.dataset.film) { // a GIF, which nothing stops: shown when it is asked for
      const show = () => { film.src = film.dataset.film; };
      if (calm) film.addEventListener("click", show, { once: true });
      else show();
    } else {
      film.muted = true;
      if (!calm) film.play().catch(() => {});
    }
  },
};

function purposeOf({ dataset, name }) {
  return [dataset.do, dataset.action, name].join();
}

(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => { root.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"); };
  theme();
  dark.addEventListener("change", theme);
  const probe = new File([], "a.jpg", { type: "image/jpeg" });
  root.classList.toggle("can-share", navigator.canShare?.({ files: [probe] }) ?? false);

  const on = (kind, react, capture) => window.addEventListener(kind, react, capture);
  on("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (!button) return;
    const { do: verb, of, action } = button.dataset;
    if (lookalike[verb]) return lookalike[verb](button);
    if (verb === "press") {
      button.disabled = true;
      button.classList.add("busy");
    }
    lookalike.tell(verb, of ?? "", action ?? "");
  });
  on("change", ({ target }) => {
    if (target.dataset.do) lookalike.tell(target.dataset.do, target.name, target.value);
    if (target.id !== "files") return;
    lookalike.add(target.files);
    target.value = "";
  });
  on("submit", (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    lookalike.tell(event.target.dataset.do, Object.fromEntries(given), given.getAll("categories"));
    if (event.target.dataset.do === "say") event.target.reset();
  });
  on("pointerdown", ({ target }) => { if (!target.closest("button, input, select")) lookalike.purpose = ""; });
  on("focusin", ({ target }) => { lookalike.purpose = target.dataset?.do && purposeOf(target); });
  on("close", ({ target }) => { if (target.id === "camera") lookalike.stopCamera(); }, true);
  // Pictures that are gone, or that the browser can't show.
  on("error", ({ target }) => { if (target.tagName === "IMG") target.hidden = true; }, true);

  const mark = (event, over) => {
    event.preventDefault();
    document.getElementById("drop")?.classList.toggle("over", over);
  };
  on("dragover", (event) => mark(event, true));
  on("dragleave", (event) => mark(event, false));
  on("drop", (event) => {
    mark(event, false);
    if (event.dataTransfer) lookalike.add(event.dataTransfer.files);
  });
  on("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    lookalike.add(event.clipboardData.files);
  });
  new MutationObserver(() => document.querySelectorAll(".film:not([data-met])").forEach((film) => {
    film.dataset.met = "";
    lookalike.play(film);
  })).observe(root, { childList: true, subtree: true });
})();
