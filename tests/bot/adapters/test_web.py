"""The web chat in a real browser: the program runs as its users run it, Chromium talks to it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from homes import copy_home
from PIL import Image, ImageChops
from variants import variants_of
from wikimedia_server import Fact, Picture, Wiki, playing

from bot.text import Wording

playwright = pytest.importorskip("playwright.sync_api")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe

ANSWER_MS = 30_000
DESK = {"viewport": {"width": 1200, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "color_scheme": "dark",
    "is_mobile": True,
    "has_touch": True,
}
ZOOMED = {"viewport": {"width": 640, "height": 400}}
CHOSEN: dict[Any, dict[str, Any]] = {}


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

    def __init__(self, home: Path, port: int = 0, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", port)) as free:
            self.port = free.getsockname()[1]
        environment = {
            # The toolkit compresses nothing where it believes to be tested.
            **{k: v for k, v in os.environ.items() if not k.startswith(("LOOKALIKE_", "PYTEST_"))},
            "LOOKALIKE_WEB__PORT": str(self.port),
            "LOOKALIKE_MODELS__FETCH": "false",
            "LOOKALIKE_LOG__LEVEL": "DEBUG",
            "LOOKALIKE_QUEUE__PHOTOS_PER_MINUTE": "1000",
            **settings,
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
def home(tmp_path_factory: pytest.TempPathFactory, starter_home: Path) -> Path:
    """A data folder with two people in it."""
    return copy_home(starter_home, tmp_path_factory.mktemp("web") / "home")


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
    flags += ["--renderer-process-limit=1", "--disable-features=SpareRendererForSitePerProcess"]
    media = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=[*flags, *media])
        yield running
        running.close()


@pytest.fixture(scope="module")
def two_faces(hopper_jpeg: bytes, collins_jpeg: bytes) -> bytes:
    """Both of them in one photo."""
    pair = [Image.open(io.BytesIO(one)).resize((512, 512)) for one in (hopper_jpeg, collins_jpeg)]
    both = Image.new("RGB", (1024, 512))
    for at, one in enumerate(pair):
        both.paste(one, (512 * at, 0))
    buffer = io.BytesIO()
    both.save(buffer, "JPEG")
    return buffer.getvalue()


class Visitor:
    """Somebody with a browser, whose pages must raise no error.

    Visitors with the same kind of device share what the browser compiled, nothing else.
    """

    def __init__(self, browser: Any, program: Program, **options: Any) -> None:
        media = {name: options.pop(name, "null") for name in ("color_scheme", "reduced_motion")}
        viewport, language = (
            options.pop("viewport", DESK["viewport"]),
            options.pop("language", "en-GB"),
        )
        self.context = next((one for one in browser.contexts if CHOSEN[one] == options), None)
        if self.context is None:
            self.context = browser.new_context(**options)
            CHOSEN[self.context] = options
        self.origin = program.url.rstrip("/")
        self.errors: list[str] = []
        self.page = self.context.pages[0] if self.context.pages else self.context.new_page()
        self.page.emulate_media(**media)
        self.page.set_viewport_size(viewport)
        self.page.set_extra_http_headers({"Accept-Language": language})
        self._listeners = {
            "pageerror": lambda error: self.errors.append(str(error)),
            # Where dialogs are first asked for when one is about to open, it may come too late.
            "filechooser": lambda _: None,
        }
        for event, listener in self._listeners.items():
            self.page.on(event, listener)
        self.page.goto(program.url)
        self.connected()

    def leaves(self) -> None:
        """Closes the page; the browser forgets who that was."""
        network = self.context.new_cdp_session(self.page)
        forgotten = {"origin": self.origin, "storageTypes": "cookies,local_storage,indexeddb"}
        network.send("Storage.clearDataForOrigin", forgotten)
        network.detach()
        self.page.goto("about:blank")
        self.context.clear_cookies()
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    def connected(self) -> None:
        """Waits until what is done on the page reaches the program."""
        self.page.wait_for_function("window.did_handshake === true")

    def adds(self, **photos: bytes) -> None:
        """Chooses files as a person does in the browser's dialog; ``a_jpg`` is ``a.jpg``."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".drop").click()
        files = [
            {"name": name.replace("_", "."), "mimeType": "image/jpeg", "buffer": photo}
            for name, photo in photos.items()
        ]
        chooser.value.set_files(files)

    def drops(self, *groups: list[tuple[str, str, bytes]], every_ms: int = 0) -> None:
        """Drops files, each with name and media type, one group after the other."""
        told = [
            [(name, kind, base64.b64encode(content).decode()) for name, kind, content in group]
            for group in groups
        ]
        script = """async ([groups, pause]) => {
          for (const group of groups) {
            const data = new DataTransfer();
            for (const [name, type, base64] of group) {
              const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
              data.items.add(new File([bytes], name, {type}));
            }
            const drop = {dataTransfer: data, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent("drop", drop));
            await new Promise(done => setTimeout(done, pause));
          }
        }"""
        self.page.evaluate(script, [told, every_ms])

    def says(self, command: str) -> None:
        """Types a command."""
        box = self.page.get_by_role("textbox", name="Or type a command")
        box.fill(command)
        box.press("Enter")

    @property
    def answers(self) -> Any:
        """What is listed, newest first."""
        return self.page.get_by_role("log").get_by_role("article")

    @property
    def newest(self) -> Any:
        return self.answers.first

    def sees(self, name: str) -> None:
        """Waits for the newest answer to be about somebody."""
        expect(self.newest.locator("h2 .name")).to_have_text(name, timeout=ANSWER_MS)

    def is_answered(self, count: int) -> None:
        """Waits until there are so many entries and none is looked at any more."""
        expect(self.answers).to_have_count(count, timeout=ANSWER_MS)
        expect(self.page.locator("[aria-busy=true]")).to_have_count(0, timeout=3 * ANSWER_MS)

    def presses(self, name: str) -> None:
        """A button of the newest answer."""
        self.newest.get_by_role("button", name=name).first.click(timeout=ANSWER_MS)


expect = playwright.expect


@pytest.fixture
def visitor(browser: Any, program: Program) -> Iterator[Visitor]:
    """Somebody at a desk."""
    with visiting(browser, program) as somebody:
        yield somebody


@contextlib.contextmanager
def visiting(browser: Any, program: Program, **options: Any) -> Iterator[Visitor]:
    """Somebody with other options of the browser."""
    somebody = Visitor(browser, program, **options)
    try:
        yield somebody
    finally:
        somebody.leaves()
    assert not somebody.errors


def test_a_page_is_light_and_asks_nobody_else(browser: Any, program: Program) -> None:
    """Under 600 kB and 30 requests as it is opened for the first time, all to this machine."""
    context = browser.new_context(locale="en-GB")
    page, asked, sizes = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(program.url)
    page.wait_for_function("window.did_handshake === true")
    page.wait_for_load_state("networkidle")
    assert sum(sizes) < 600_000
    assert len(asked) < 30
    assert all(url.startswith((program.url, "data:", "blob:")) for url in asked), asked
    context.close()


@pytest.mark.parametrize("device", [DESK, PHONE, ZOOMED], ids=["desk", "phone", "zoomed"])
def test_a_photo_is_answered_in_view(
    browser: Any, program: Program, hopper_jpeg: bytes, device: dict[str, Any]
) -> None:
    """The card, then who, a sentence, the bar and buttons; nothing is wider than the screen."""
    with visiting(browser, program, **device) as visitor:
        visitor.adds(me_jpg=hopper_jpeg)
        visitor.sees("Grace Hopper")
        answer, page = visitor.newest, visitor.page
        card = answer.locator(".card img")
        expect(card).to_have_js_property("complete", value=True)
        shown, own = card.evaluate(
            "i => [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]"
        )
        assert shown == pytest.approx(own, rel=0.02)
        assert "Grace Hopper" in card.get_attribute("alt")
        meter = answer.get_by_role("meter")
        assert "Grace Hopper" in meter.get_attribute("aria-label")
        score = int(answer.locator(".score strong").inner_text())
        assert score >= 99  # the very photo is in the gallery
        assert int(meter.get_attribute("aria-valuenow")) == score
        assert "dlib" in answer.inner_text()
        page.wait_for_function(
            "() => { const top = document.querySelector('article')"
            ".getBoundingClientRect().top; return top >= 0 && top < 0.6 * innerHeight; }"
        )
        width = device["viewport"]["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        answer.get_by_role("button", name="Your photo").click()
        large = page.get_by_role("dialog", name="Large picture")
        expect(large.locator("img")).to_have_js_property("naturalWidth", 512)
        share = large.locator("img").evaluate("i => i.clientWidth / i.clientHeight")
        assert share == pytest.approx(512 / 600, rel=0.02)
        face, photo = large.locator(".box").bounding_box(), large.locator("img").bounding_box()
        assert photo["x"] < face["x"] < face["x"] + face["width"] < photo["x"] + photo["width"]
        page.keyboard.press("Escape")
        expect(large).to_be_hidden()
        expect(answer.get_by_role("button", name="Your photo")).to_be_focused()
        card.click()
        expect(large.locator("img")).to_have_js_property("naturalWidth", 1080)
        expect(large.locator(".box")).to_be_hidden()
        large.get_by_role("button", name="Close").click()
        sizes = page.evaluate("""() =>
          [...document.querySelectorAll("button, select, summary, input:not([type=file])")]
            .filter(one => one.offsetParent).map(one => [one.offsetWidth, one.offsetHeight])
        """)
        assert min(min(size) for size in sizes) >= (44 if device is PHONE else 24)


def test_what_a_button_answers_stands_below_its_answer(
    visitor: Visitor, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """It waits at once, is pressed once, and has the focus again; another answer stays as it is."""
    visitor.adds(one_jpg=hopper_jpeg)
    visitor.sees("Grace Hopper")
    visitor.adds(two_jpg=collins_jpeg)
    visitor.sees("Eileen Collins")
    visitor.page.get_by_role("button", name="Settings").click()  # it takes no focus from them
    older = visitor.answers.nth(1)
    numbers = older.get_by_role("button", name="Raw numbers")
    assert numbers.evaluate("b => { b.focus(); b.click(); return b.disabled; }")
    expect(older).to_contain_text("cosine", timeout=ANSWER_MS)
    expect(numbers).to_be_enabled()
    expect(numbers).to_be_focused()
    assert "cosine" not in visitor.newest.inner_text()
    more = older.get_by_role("button", name="More matches")
    more.focus()
    visitor.page.keyboard.press("Enter")
    expect(older.locator(".matches")).to_contain_text("Eileen Collins", timeout=ANSWER_MS)
    expect(older.get_by_role("button", name="Best match only")).to_be_visible()
    expect(older.locator(":focus")).to_have_count(1)
    expect(older).to_contain_text("cosine")  # what was asked before is still there


def test_every_photo_is_answered_or_refused_by_name(
    visitor: Visitor, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Several in a second, eleven at once, too large, no picture at all, no face."""
    small = variants_of(hopper_jpeg, collins_jpeg)
    jpeg = "image/jpeg"
    visitor.drops(*[[(f"{n}.jpg", jpeg, small(n))] for n in range(7)], every_ms=50)
    visitor.is_answered(7)
    assert visitor.page.locator("article h2 .name").count() == 7
    visitor.drops([(f"at once {n}.jpg", jpeg, small(n)) for n in range(11)])
    visitor.is_answered(18)
    assert visitor.page.locator("article h2 .name").count() == 17
    expect(visitor.answers.nth(10)).to_contain_text("10 photos at a time. Left out: at once 10.jpg")
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.evaluate("""() => {
      const file = (name, size, type) => new File([new Uint8Array(size)], name, {type});
      lookalike.add([file("big.jpg", 21e6, "image/jpeg"), file("notes.txt", 9, "text/plain")]);
    }""")
    expect(visitor.newest).to_contain_text("“big.jpg” has 21.0 MB. I take photos of up to 20 MB.")
    expect(visitor.newest).to_contain_text("“notes.txt” is no photo.")
    assert not asked  # its size was known before
    visitor.drops([("notes.jpg", jpeg, b"no photo at all")])
    expect(visitor.newest).to_contain_text("isn't a photo", timeout=ANSWER_MS)
    expect(visitor.newest).to_contain_text("notes.jpg")
    blank = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(blank, "JPEG")
    visitor.drops([("sea.jpg", jpeg, blank.getvalue())])
    expect(visitor.newest).to_contain_text("face", timeout=ANSWER_MS)
    expect(visitor.newest).to_contain_text("sea.jpg")
    expect(visitor.newest.get_by_role("img")).to_have_js_property("naturalWidth", 160)


def test_photos_on_a_slow_line_do_not_cut_each_other_off(
    visitor: Visitor, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Each takes longer than the time to the next; what is awaited outlives a lost connection."""
    network = visitor.context.new_cdp_session(visitor.page)
    slow = {"offline": False, "latency": 300, "downloadThroughput": -1}
    network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": 100_000})
    jpeg = "image/jpeg"
    photos = [("a.jpg", hopper_jpeg), ("b.jpg", collins_jpeg), ("c.jpg", hopper_jpeg)]
    visitor.drops(*[[(name, jpeg, photo)] for name, photo in photos], every_ms=700)
    visitor.is_answered(3)
    network.detach()
    names = visitor.page.locator("article h2 .name").all_inner_texts()
    assert names == ["Grace Hopper", "Eileen Collins", "Grace Hopper"]


def test_settings_answer_the_photo_again_and_outlive_a_reload(
    visitor: Visitor, hopper_jpeg: bytes
) -> None:
    """As chips behind one button; so do the answers."""
    visitor.adds(me_jpg=hopper_jpeg)
    visitor.sees("Grace Hopper")
    opener = visitor.page.get_by_role("button", name="Settings")
    opener.click()
    assert opener.get_attribute("aria-expanded") == "true"
    matches = visitor.page.get_by_role("combobox", name="Matches")
    matches.focus()
    matches.select_option("3")
    expect(visitor.newest.locator(".matches")).to_contain_text("Collins", timeout=ANSWER_MS)
    expect(matches).to_be_focused()
    style = visitor.page.get_by_role("combobox", name="Card style")
    style.select_option(label="one split face")
    halves = re.compile("half|halves|joined")
    expect(visitor.newest.locator(".card img")).to_have_attribute("alt", halves, timeout=ANSWER_MS)
    visitor.says("/top 1")
    expect(visitor.answers.nth(1).locator(".matches")).to_have_count(0, timeout=ANSWER_MS)
    visitor.page.reload()
    visitor.connected()
    expect(visitor.answers).to_have_count(2)
    expect(visitor.answers.nth(1).locator("h2 .name")).to_have_text("Grace Hopper")
    picture = visitor.answers.nth(1).locator(".card img")
    expect(picture).to_have_js_property("naturalWidth", 1080)
    visitor.page.get_by_role("button", name="Settings").click()
    expect(visitor.page.get_by_role("combobox", name="Matches")).to_have_value("1")
    answer = visitor.answers.nth(1)
    answer.get_by_role("button", name="Raw numbers").click()  # buttons outlive it, too
    expect(answer).to_contain_text("cosine", timeout=ANSWER_MS)
    visitor.says("/forget")
    visitor.presses("Yes, delete everything")
    expect(visitor.newest).to_contain_text("Done", timeout=ANSWER_MS)
    expect(visitor.answers).to_have_count(1)  # nothing of the photo is left on the page
    expect(visitor.page.locator(".card")).to_have_count(0)


def test_what_is_awaited_arrives_on_the_page_that_is_loaded_meanwhile(
    visitor: Visitor, hopper_jpeg: bytes
) -> None:
    """A photo that the old page could not send any more is asked for again."""
    with visitor.page.expect_request("**/photos/*"):
        visitor.adds(me_jpg=hopper_jpeg)
    visitor.page.reload()
    visitor.connected()
    expect(visitor.answers).to_have_count(1)
    outcome = re.compile("Grace Hopper|didn't arrive")
    expect(visitor.newest).to_contain_text(outcome, timeout=2 * ANSWER_MS)


def test_commands_are_about_the_last_photos(
    visitor: Visitor, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """Nothing tells anybody to write captions or to reply."""
    visitor.says("/compare")
    expect(visitor.newest).to_contain_text("two photos", timeout=ANSWER_MS)
    visitor.says("/morph")
    expect(visitor.newest).to_contain_text("Which photo?", timeout=ANSWER_MS)
    for command in ("/start", "/help", "/twins", "/lookalike", "/parents"):
        visitor.says(command)
        expect(visitor.newest.locator(".yours")).to_have_text(command)
        expect(visitor.newest.locator("[aria-busy=false] .said")).to_be_visible(timeout=ANSWER_MS)
    assert not re.search("caption|reply", visitor.page.get_by_role("log").inner_text())
    visitor.adds(one_jpg=hopper_jpeg, two_jpg=collins_jpeg)
    visitor.is_answered(9)
    expect(visitor.answers.nth(1)).to_contain_text("Compare these two")
    visitor.answers.nth(1).get_by_role("button", name="Compare these two").click()
    expect(visitor.answers.nth(1).locator(".part + .part")).to_contain_text(
        "likeness", timeout=ANSWER_MS
    )
    visitor.says("/compare")
    expect(visitor.newest.locator("h2")).to_contain_text("likeness", timeout=ANSWER_MS)
    visitor.says("/lookalike 3")
    expect(visitor.newest.locator(".matches")).to_be_visible(timeout=ANSWER_MS)


def test_faces_of_a_group_have_their_buttons(visitor: Visitor, two_faces: bytes) -> None:
    visitor.adds(us_jpg=two_faces)
    expect(visitor.newest).to_contain_text("Face 1 of 2", timeout=ANSWER_MS)
    visitor.presses("Face 2")
    expect(visitor.newest).to_contain_text("Face 2 of 2", timeout=ANSWER_MS)


def test_a_photo_is_pasted(visitor: Visitor, hopper_jpeg: bytes) -> None:
    script = """base64 => {
      const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
      const paste = {clipboardData: data, bubbles: true, cancelable: true};
      document.body.dispatchEvent(new ClipboardEvent("paste", paste));
    }"""
    visitor.page.evaluate(script, base64.b64encode(hopper_jpeg).decode())
    visitor.sees("Grace Hopper")


def test_the_camera_takes_a_photo(visitor: Visitor) -> None:
    """Chromium's test camera shows no face, so the answer is the sentence that says so."""
    visitor.page.get_by_role("button", name="Use the camera").click()
    visitor.page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    visitor.page.get_by_role("button", name="Take the photo").click()
    expect(visitor.newest).to_contain_text("face", timeout=ANSWER_MS)
    expect(visitor.newest).to_contain_text("camera.jpg")
    visitor.page.wait_for_function("!lookalike.stream")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hinders_people_with_other_senses(
    browser: Any, program: Program, hopper_jpeg: bytes, scheme: str
) -> None:
    """axe-core finds nothing on the empty page, an answer, the settings, camera and picture."""
    with visiting(browser, program, color_scheme=scheme) as visitor:

        def check(what: str) -> None:
            found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
            nodes = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
            assert not nodes, what

        axe, page = Axe(), visitor.page
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        check("empty page")
        visitor.adds(me_jpg=hopper_jpeg)
        visitor.sees("Grace Hopper")
        visitor.presses("Raw numbers")
        expect(visitor.newest).to_contain_text("cosine", timeout=ANSWER_MS)
        page.get_by_role("button", name="Settings").click()
        page.get_by_text("Bring me to Telegram and Discord").click()
        expect(page.get_by_text("LOOKALIKE_TELEGRAM__TOKEN")).to_be_visible()
        check("an answer and the settings")
        page.get_by_role("button", name="Use the camera").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        check("the camera")
        page.keyboard.press("Escape")
        visitor.newest.locator(".enlarge").click()
        check("a large picture")
        page.keyboard.press("Escape")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        other = "light" if scheme == "dark" else "dark"
        page.get_by_role("button", name=f"{other.title()} mode").click()
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == other


def test_a_keyboard_reaches_everything(visitor: Visitor) -> None:
    """Tab reaches the invitation, the photo's place, settings and commands."""
    reached = []
    script = "e => e.getAttribute('aria-label') || (e.tabIndex < 0 ? '' : e.innerText || e.name)"
    for _ in range(12):
        visitor.page.keyboard.press("Tab")
        reached.append(visitor.page.evaluate(f"({script})(document.activeElement)"))
        if "Drop a photo here" in reached[-1]:
            with visitor.page.expect_file_chooser():
                visitor.page.keyboard.press("Enter")
    text = " ".join(reached)
    for name in ("Dark mode", "contact", "Drop a photo here", "Use the camera", "Settings"):
        assert name in text


@pytest.mark.parametrize("language", ["en", "es", "ru", "hi"])
def test_the_toolkit_speaks_the_visitors_language(
    browser: Any, program: Program, language: str
) -> None:
    """What it says when the connection is lost is a sentence of ours."""
    wording = Wording.load()
    with visiting(browser, program, language=language) as visitor:
        popup = visitor.page.locator("#popup")
        assert wording.text("web.lost_connection", language) in popup.text_content()
        assert wording.text("web.reconnecting", language) in popup.text_content()
        assert visitor.page.evaluate("document.documentElement.lang").startswith(language)
        assert visitor.page.get_by_text(wording.text("web.title", language)).is_visible()


def test_touch_is_not_told_of_keys(browser: Any, program: Program) -> None:
    with visiting(browser, program, **PHONE) as visitor:
        assert "Ctrl" not in visitor.page.locator("body").inner_text()
        assert visitor.page.get_by_role("button", name="Choose a photo").is_visible()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_film_plays_by_itself_but_not_for_those_who_want_less_motion(
    browser: Any, program: Program, hopper_jpeg: bytes, motion: str
) -> None:
    """Silent, again and again, described, with controls; it can be saved, or shared."""
    with visiting(browser, program, reduced_motion=motion) as visitor:
        page = visitor.page
        visitor.adds(me_jpg=hopper_jpeg)
        visitor.sees("Grace Hopper")
        visitor.presses("Morph")
        video = visitor.newest.locator("video")
        expect(video).to_be_visible(timeout=ANSWER_MS)
        page.wait_for_function("document.querySelector('.film').videoWidth === 480")
        told = video.evaluate("v => [v.loop, v.muted, v.controls, v.playsInline]")
        assert told == [True, True, True, True]
        assert "Grace Hopper" in video.get_attribute("aria-label")
        if motion == "reduce":
            assert video.evaluate("v => v.paused && v.currentTime === 0")
        else:
            page.wait_for_function("document.querySelector('.film').currentTime > 0.2")
        with page.expect_download() as saved:
            visitor.presses("Save the film")
        assert saved.value.suggested_filename == "lookalike.mp4"
        page.evaluate("""() => {
          navigator.canShare = () => true;
          navigator.share = async ({files}) => { window.file = files[0]; };
        }""")
        visitor.presses("Save the card")
        page.wait_for_function("window.file?.name === 'lookalike.jpg'")
        read = """() => new Promise((done) => {
          const reader = new FileReader();
          reader.onload = () => done(reader.result.split(",")[1]);
          reader.readAsDataURL(window.file);
        })"""
        shared = Image.open(io.BytesIO(base64.b64decode(page.evaluate(read))))
        plain = page.request.get(page.locator(".card img").first.evaluate("i => i.src"))
        card = Image.open(io.BytesIO(plain.body()))
        assert shared.size == card.size
        changed = ImageChops.difference(shared.convert("L"), card.convert("L"))
        marked = changed.point(lambda level: 255 * (level > 60)).getbbox()
        assert marked is not None  # "You" at one side of the faces, the bot's name at the other
        assert (marked[0] < 100, marked[2] > 900) == (True, True)
        assert marked[3] - marked[1] < 100


def test_the_page_fills_an_empty_gallery(
    browser: Any, own_home: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """A contact, a button, a bar with faces; it goes on after a reload and after a restart."""
    wiki, variant = Wiki(held_after=5), variants_of(hopper_jpeg, collins_jpeg)
    for number in range(12):
        title = f"Portrait {number}.jpg"
        wiki.facts.append(Fact(f"Q{number + 1}", f"Somebody {number}", 90, [title], ["Q33999"]))
        wiki.pictures[title] = Picture(variant(number))
    with playing(wiki):
        servers = dict.fromkeys(("WIKIDATA_URL", "COMMONS_URL"), wiki.url)
        settings = {f"LOOKALIKE_GALLERY__{name}": url for name, url in servers.items()}
        program = Program(own_home, **settings)
        program.wait()
        with visiting(browser, program) as visitor:
            page = visitor.page
            expect(page.locator(".faces").get_by_role("img")).to_have_count(2)
            expect(page.get_by_text("Only 2 people are here so far.")).to_be_visible()
            field = page.get_by_role("textbox", name="Your e-mail address or web page")
            field.fill("nobody")
            page.get_by_role("button", name="Get them").click()
            expect(page.get_by_role("alert")).to_contain_text("neither")
            field.fill("me@example.org")
            page.get_by_role("button", name="Get them").click()
            bar = page.get_by_role("progressbar")
            expect(bar).to_be_visible()
            page.reload()
            some = page.get_by_text(re.compile("[1-9][0-9]* of 12 faces"))
            expect(some).to_be_visible(timeout=ANSWER_MS)
        program.process.send_signal(signal.SIGTERM)
        wiki.down_after = 0  # the pictures in flight arrive, and no other
        wiki.release.set()
        program.process.wait(20)
        wiki.down_after = None
        wiki.release.clear()
        program = Program(own_home, program.port, **settings)
        program.wait()
        with visiting(browser, program) as visitor:
            page = visitor.page
            expect(page.get_by_role("progressbar")).to_be_visible(timeout=ANSWER_MS)
            wiki.release.set()
            expect(page.locator(".faces").get_by_role("img")).to_have_count(9, timeout=ANSWER_MS)
            expect(page.get_by_text("14 people are here", exact=True)).to_be_visible(
                timeout=ANSWER_MS
            )
            page.get_by_role("button", name="Get more faces").click()
            page.get_by_role("combobox", name="How many").select_option("10000")
            page.get_by_role("checkbox", name="film").check()
            wiki.delay_s = 0.3
            wiki.release.clear()
            page.get_by_role("button", name="Get them").click()
            page.get_by_role("button", name="Stop").click()
            expect(page.get_by_role("button", name="Get more faces")).to_be_visible(
                timeout=ANSWER_MS
            )
        program.stop()
    assert all("(me@example.org)" in agent for agent in wiki.agents)


def test_it_ends_in_time_and_leaves_no_photo_behind(
    browser: Any, program: Program, home: Path, hopper_jpeg: bytes
) -> None:
    """SIGTERM with a browser connected: over within 10 s; no upload on disk, no id in the log."""
    visitor = Visitor(browser, program)
    visitor.adds(me_jpg=hopper_jpeg + b"sent by a visitor")
    visitor.sees("Grace Hopper")
    cookie = next(c for c in visitor.context.cookies() if c["name"] == "session")
    name = json.loads(base64.b64decode(cookie["value"].split(".")[0] + "=="))["id"]
    assert program.stop() < 10
    assert program.process.returncode == 0
    visitor.page.close()
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"sent by a visitor" in path.read_bytes()]
    assert name not in program.log.read_text()
