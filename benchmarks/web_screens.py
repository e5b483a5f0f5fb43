"""The web chat as people see it: desk, phone, zoomed, light and dark, into ``artefacts/``.

It runs the program on a fresh data folder and looks at it with Chromium; only the two public-domain
portraits that come with the packages are seen. With ``--record`` those of the README are written.

    python benchmarks/web_screens.py --record
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from screens import read_options

from gallery.sources.bundled import bundled_portraits

ROOT = Path(__file__).parents[1]
DEVICES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "zoomed": {"viewport": {"width": 640, "height": 400}},
}
COLUMN_PX = 780
RECORDED = {"answer_desk_light": "web", "answer_phone_dark": "web_phone"}


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of the program on a data folder of its own, where only Grace Hopper is."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"WEB__PORT": str(port), "MODELS__FETCH": "false", "GALLERY__STARTER": "false"}
    own = {f"LOOKALIKE_{name}": value for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as home:
        run = [sys.executable, "-m", "bot", "--home", home]
        asked = {"env": os.environ | own, "cwd": ROOT, "stdout": subprocess.DEVNULL}
        subprocess.run([*run, "demo", "--out", f"{home}/demo.jpg"], check=True, **asked)
        subprocess.run([*run, "gallery", "remove", "Eileen Collins"], check=True, **asked)
        program = subprocess.Popen([*run, "run"], **asked)
        try:
            url = f"http://127.0.0.1:{port}/"
            for _ in range(300):
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                    break
                time.sleep(0.1)
            yield url
        finally:
            program.terminate()
            program.wait()


def add(page: Page, *photos: bytes) -> None:
    """Chooses photos and waits for their answers."""
    files = [
        {"name": f"{at}.jpg", "mimeType": "image/jpeg", "buffer": photo}
        for at, photo in enumerate(photos)
    ]
    before = page.locator("article").count()
    page.set_input_files("#files", files)
    page.locator("article").nth(before + len(photos) - 1).wait_for(timeout=60_000)
    page.wait_for_function("!document.querySelector('[aria-busy=true]')", timeout=60_000)


def states(page: Page, portrait: bytes, group: bytes) -> Iterator[str]:
    """What there is to see, one after the other, by name."""
    yield "empty"
    add(page, portrait)
    yield "answer"
    page.get_by_role("button", name="Raw numbers").click()
    page.get_by_text("cosine").wait_for()
    yield "below"
    page.get_by_role("button", name="Settings").click()
    page.locator("select[name=top]").select_option("3")
    page.wait_for_function("!document.querySelector('[aria-busy=true]')")
    page.evaluate("scrollTo(0, 0)")
    yield "settings"
    page.locator("select[name=top]").select_option("1")
    page.locator("[data-do=toggle]").click()
    add(page, group)
    yield "group"
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('video').videoWidth > 0")
    yield "camera"
    page.keyboard.press("Escape")
    blank = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(blank, "JPEG")
    add(page, blank.getvalue())
    yield "no_face"


def main() -> None:
    """Makes the pictures and says where they are."""
    options = read_options(__doc__)
    hopper, collins = (portrait.read(10_000_000) for portrait in bundled_portraits())
    both, paper = Image.new("RGB", (1024, 512)), io.BytesIO()
    for at, one in enumerate((hopper, collins)):
        both.paste(Image.open(io.BytesIO(one)).resize((512, 512)), (512 * at, 0))
    both.save(paper, "JPEG")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("Chromium is not here, so there are no pictures of the page")
        return
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with serving() as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        for device, shown in DEVICES.items():
            for scheme in ("light", "dark"):
                calm = {"color_scheme": scheme, "reduced_motion": "reduce", "locale": "en-GB"}
                page = browser.new_context(**shown, **calm).new_page()
                page.goto(url)
                page.wait_for_function("window.did_handshake === true")
                for state in states(page, collins, paper.getvalue()):
                    page.wait_for_function("[...document.images].every((one) => one.complete)")
                    name = f"{state}_{device}_{scheme}"
                    page.screenshot(path=options.out / f"web_{name}.png")
                    if options.record and name in RECORDED:
                        picture = Image.open(options.out / f"web_{name}.png").convert("RGB")
                        aside = max(0, (picture.width - COLUMN_PX) // 2)  # of a desk
                        picture = picture.crop((aside, 0, picture.width - aside, picture.height))
                        picture.save(ROOT / "docs" / f"{RECORDED[name]}.jpg", quality=85)
                page.context.close()
        browser.close()
    print(f"all in {options.out}")


if __name__ == "__main__":
    main()
