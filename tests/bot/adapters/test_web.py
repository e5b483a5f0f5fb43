"""The web chat in a real browser: the program runs as its users run it, Chromium talks to it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")

ARTEFACTS = Path(__file__).parents[3] / "artefacts"
ANSWER_MS = 20_000


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's path."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI installs Chromium; it is not there")
        pytest.skip("Chromium is not installed")
    return found


class Program:
    """`lookalike run` without a token."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")},
            "LOOKALIKE_WEB__PORT": str(self.port),
            "LOOKALIKE_MODELS__FETCH": "false",
            "LOOKALIKE_LOG__LEVEL": "DEBUG",
        }
        self.log = home / "run.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bot", "--home", str(home), "run"],
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.url = f"http://127.0.0.1:{self.port}/"

    def wait(self, seconds: float = 60) -> None:
        """Until the page answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"no page after {seconds} s: {self.log.read_text()}")

    def stop(self) -> float:
        """Asks for the end; seconds until it came."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, hopper_jpeg: bytes, collins_jpeg: bytes) -> Path:
    """A data folder with two people in it."""
    home = tmp_path_factory.mktemp("web")
    people = home / "people"
    for name, jpeg in (("Grace_Hopper", hopper_jpeg), ("Eileen_Collins", collins_jpeg)):
        (people / name).mkdir(parents=True)
        (people / name / "1.jpg").write_bytes(jpeg)
    command = [sys.executable, "-m", "bot", "--home", str(home), "gallery", "add", str(people)]
    subprocess.run([*command, "--category", "science"], check=True, capture_output=True)
    return home


@pytest.fixture(scope="module")
def program(home: Path) -> Iterator[Program]:
    running = Program(home)
    running.wait()
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    media = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=[*flags, *media])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, program: Program) -> Iterator[Any]:
    """A visitor on a desk, whose page must raise no error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, locale="en-GB")
    errors: list[str] = []
    yield visit(context, program, errors)
    context.close()
    assert not errors


def visit(context: Any, program: Program, errors: list[str] | None = None) -> Any:
    """The page, once its script has started; its errors go to the list.

    The browser's file dialogs are caught from now on: where that is first asked for when a dialog
    is about to open, it may come too late.
    """
    page = context.new_page()
    page.on("filechooser", lambda _: None)
    if errors is not None:
        page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(program.url)
    page.wait_for_function("!!window.lookalike?.add")
    return page


def upload(page: Any, *photos: bytes) -> None:
    """Chooses files as a person does in the browser's dialog."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Drop a photo here").click()
    files = [
        {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": photo}
        for number, photo in enumerate(photos)
    ]
    chooser.value.set_files(files)


def newest(page: Any) -> Any:
    """The answer at the top of the list."""
    return page.get_by_role("log").locator("> *").first


def expect_name(page: Any, name: str) -> None:
    playwright.expect(newest(page).locator(".name").first).to_have_text(name, timeout=ANSWER_MS)


def test_a_photo_is_answered_side_by_side(page: Any, hopper_jpeg: bytes) -> None:
    """Both pictures in their own proportions, name, score bar, model and buttons."""
    upload(page, hopper_jpeg)
    expect_name(page, "Grace Hopper")
    answer = newest(page)
    pictures = answer.locator("figure img")
    assert pictures.count() == 2
    for number in range(2):
        shown, own = pictures.nth(number).evaluate(
            "i => [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]"
        )
        assert shown == pytest.approx(own, rel=0.02)
        assert pictures.nth(number).get_attribute("alt")
    bar = answer.get_by_role("progressbar")
    assert "Grace Hopper" in bar.get_attribute("aria-label")
    score = int(re.sub(r"\D", "", answer.locator(".score").inner_text()))
    assert score >= 99  # the very photo is in the gallery
    assert float(bar.get_attribute("aria-valuenow")) == pytest.approx(score / 100, abs=0.02)
    assert "dlib" in answer.inner_text()
    ARTEFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTEFACTS / "web_chat.png")


def test_buttons_answer_without_another_upload(page: Any, hopper_jpeg: bytes) -> None:
    upload(page, hopper_jpeg)
    expect_name(page, "Grace Hopper")
    newest(page).get_by_role("button", name="More matches").click()
    playwright.expect(newest(page).locator(".name")).to_have_count(2, timeout=ANSWER_MS)
    assert "Eileen Collins" in newest(page).inner_text()


def test_dropped_and_pasted_photos_are_answered(
    page: Any, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    script = """([kind, base64]) => {
      const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
      const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event);
    }"""
    page.evaluate(script, ["drop", base64.b64encode(hopper_jpeg).decode()])
    expect_name(page, "Grace Hopper")
    page.evaluate(script, ["paste", base64.b64encode(collins_jpeg).decode()])
    expect_name(page, "Eileen Collins")
    assert page.get_by_role("log").locator(".name").count() == 2  # the session's history


def test_the_camera_takes_a_photo(page: Any) -> None:
    """Chromium's test camera shows no face, so the answer is the sentence that says so."""
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()
    playwright.expect(newest(page)).to_contain_text("no face", timeout=ANSWER_MS)


def test_a_keyboard_reaches_everything(page: Any) -> None:
    """Tab reaches the drop zone, every menu and the command line; Enter opens the dialog."""
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        script = "e => e.getAttribute('aria-label') || (e.tabIndex < 0 ? '' : e.innerText)"
        reached.append(page.evaluate(f"({script})(document.activeElement)"))
        if "Drop a photo here" in reached[-1]:
            with page.expect_file_chooser():
                page.keyboard.press("Enter")
    text = " ".join(reached)
    for name in ("Light page", "Drop a photo here", "Use the camera", "Model", "Matches to show"):
        assert name in text


def test_commands_and_menus_do_the_same_and_outlive_a_reload(page: Any) -> None:
    command = page.get_by_label("Or type a command")
    command.fill("/top 3")
    command.press("Enter")
    playwright.expect(newest(page)).to_contain_text("3 best matches", timeout=ANSWER_MS)
    page.reload()
    menu = page.get_by_role("combobox", name="Matches to show")
    playwright.expect(menu).to_have_value("3")
    menu.click()
    page.get_by_role("option", name="1", exact=True).click()
    playwright.expect(page.get_by_role("alert")).to_contain_text("best match", timeout=ANSWER_MS)


def test_a_file_that_is_no_photo_gets_a_sentence(page: Any) -> None:
    upload(page, b"no photo at all")
    playwright.expect(newest(page)).to_contain_text("JPEG", timeout=ANSWER_MS)


def test_two_photos_can_be_compared(page: Any, hopper_jpeg: bytes, collins_jpeg: bytes) -> None:
    upload(page, hopper_jpeg, collins_jpeg)
    newest(page).get_by_role("button", name="Compare these two").click(timeout=ANSWER_MS)
    playwright.expect(newest(page)).to_contain_text("How alike?", timeout=ANSWER_MS)


def test_the_page_suits_a_phone_in_the_dark(
    browser: Any, program: Program, hopper_jpeg: bytes
) -> None:
    """Nothing is wider than the screen, the page is dark, the words are the visitor's."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", locale="es-MX", is_mobile=True
    )
    page = visit(context, program)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Suelta una foto").click()
    photo = {"name": "1.jpg", "mimeType": "image/jpeg", "buffer": hopper_jpeg}
    chooser.value.set_files([photo])
    expect_name(page, "Grace Hopper")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.documentElement.lang") == "es"
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 60
    page.screenshot(path=ARTEFACTS / "web_chat_phone.png", full_page=True)
    context.close()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_film_plays_by_itself_but_not_for_those_who_want_less_motion(
    browser: Any, program: Program, hopper_jpeg: bytes, motion: str
) -> None:
    """Silent, again and again, described, with controls; it can be saved."""
    context = browser.new_context(reduced_motion=motion, locale="en-GB")
    page = visit(context, program)
    upload(page, hopper_jpeg)
    expect_name(page, "Grace Hopper")
    newest(page).get_by_role("button", name="Morph").click()
    video = newest(page).locator("video")
    playwright.expect(video).to_be_visible(timeout=ANSWER_MS)
    page.wait_for_function("document.querySelector('video').videoWidth === 480")
    told = video.evaluate("v => [v.loop, v.muted, v.controls, v.playsInline]")
    assert told == [True, True, True, True]
    assert "Grace Hopper" in video.get_attribute("aria-label")
    if motion == "reduce":
        page.wait_for_timeout(500)
        assert video.evaluate("v => v.paused && v.currentTime === 0")
    else:
        page.wait_for_function("document.querySelector('video').currentTime > 0.2")
    with page.expect_download() as saved:
        newest(page).get_by_role("button", name="Save the film").click()
    assert saved.value.suggested_filename == "lookalike.mp4"
    page.screenshot(path=ARTEFACTS / f"web_chat_film_{motion}.png")
    context.close()


def test_a_split_face_stands_in_the_place_of_the_pair(page: Any, hopper_jpeg: bytes) -> None:
    """The page shows the card itself then, chosen by its menu."""
    page.get_by_role("combobox", name="How it is drawn").click()
    page.get_by_role("option", name="one split face").click()
    playwright.expect(page.get_by_role("alert")).to_contain_text("one face", timeout=ANSWER_MS)
    upload(page, hopper_jpeg)
    expect_name(page, "Grace Hopper")
    assert newest(page).locator("figure").count() == 0
    assert "two halves" in newest(page).locator("img").first.get_attribute("alt")
    page.screenshot(path=ARTEFACTS / "web_chat_split.png")


def test_without_a_token_the_page_says_how_to_add_one(page: Any) -> None:
    page.get_by_text("Bring me to Telegram and Discord").click()
    playwright.expect(page.get_by_text("LOOKALIKE_TELEGRAM__TOKEN")).to_be_visible()


def test_a_foreign_name_for_this_machine_is_refused(program: Program) -> None:
    """A page elsewhere can't reach the chat by pointing its own name here (DNS rebinding)."""
    request = urllib.request.Request(program.url, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    assert refused.value.code == 403
    refused.value.close()


def test_it_ends_in_time_and_leaves_no_photo_behind(
    browser: Any, program: Program, home: Path, hopper_jpeg: bytes
) -> None:
    """SIGTERM with a browser connected: over within 10 s; no upload on disk, no id in the log."""
    context = browser.new_context()
    page = visit(context, program)
    upload(page, hopper_jpeg)
    expect_name(page, "Grace Hopper")
    cookie = next(c for c in context.cookies() if c["name"] == "session")
    visitor = json.loads(base64.b64decode(cookie["value"].split(".")[0] + "=="))["id"]
    assert program.stop() < 10
    assert program.process.returncode == 0
    context.close()
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert kept
    assert not [
        p for p in kept if p.parent.name != "Grace_Hopper" and p.read_bytes() == hopper_jpeg
    ]
    assert visitor not in program.log.read_text()
