"""The report as a person sees it: in a browser, light and dark, wide and narrow, offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from homes import copy_home

from bot.cli.main import lookalike

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def report(
    starter_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    hopper_jpeg: bytes,
    collins_jpeg: bytes,
) -> Path:
    """A report on two people, one of whom tries to be a script."""
    root = tmp_path_factory.mktemp("browsed")
    names = ("Grace_Hopper", "<img src=http:@x onerror=document.title=1>")
    for name, content in zip(names, (hopper_jpeg, collins_jpeg), strict=True):
        folder = root / "people" / "science" / name
        folder.mkdir(parents=True)
        for number in range(4):
            (folder / f"{number}.jpg").write_bytes(content)
    home = copy_home(starter_home, root / "home")
    words = ["evaluate", "report", str(root / "people"), "--html", str(root / "report.html")]
    result = CliRunner().invoke(lookalike, [*words, "--model", "dlib", "--home", str(home)])
    assert result.exit_code == 0, result.output
    return root / "report.html"


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("CI installs Chromium; it is not there")
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += ["--disable-features=SpareRendererForSitePerProcess"]
        running = started.chromium.launch(executable_path=found, args=flags)
        yield running.new_context()
        running.close()


@pytest.fixture(scope="module", params=[("light", 1280), ("dark", 1280), ("light", 360)], ids=str)
def page(request: pytest.FixtureRequest, context: Any, report: Path) -> Iterator[Any]:
    """The report open; it may ask for nothing and say nothing on the console."""
    scheme, width_px = request.param
    page = context.new_page()
    page.set_viewport_size({"width": width_px, "height": 800})
    page.emulate_media(color_scheme=scheme)
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("file:", "data:")) else troubles.append(asked.url)
        ),
    )
    page.goto(report.as_uri())
    yield page
    page.close()
    assert troubles == []


def test_it_can_be_read(page: Any) -> None:
    """Pictures have words, charts names, nothing is wider than the window, ink shows on paper."""
    assert page.title() == "Lookalike: who is recognised, and how well"
    images = page.locator("img")
    assert images.count() >= 4
    for image in images.all():
        assert "photo of " in image.get_attribute("alt")
        assert image.evaluate("picture => picture.complete && picture.naturalWidth > 0")
        box = image.bounding_box()
        assert abs(box["width"] - box["height"]) < 1  # not stretched
    charts = page.get_by_role("img", name="ROC")
    assert charts.count() == 1
    assert charts.bounding_box()["width"] > 250
    widest = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert widest <= 0
    colours = page.evaluate(
        "() => [document.body, document.querySelector('.chart svg text')].map(one =>"
        " [getComputedStyle(one).color, getComputedStyle(one).fill,"
        " getComputedStyle(document.body).backgroundColor])"
    )
    (ink, _, paper), (_, letters, _) = colours
    assert letters == ink != paper


def test_links_lead_to_their_sections(page: Any) -> None:
    for link in page.get_by_role("navigation").get_by_role("link").all():
        target = page.locator(link.get_attribute("href"))
        assert target.count() == 1
        assert target.evaluate("one => one.tagName") == "H2"


def test_it_prints(page: Any, tmp_path: Path) -> None:
    content = page.pdf(path=str(tmp_path / "report.pdf"), format="A4")

    assert content.startswith(b"%PDF")
    assert len(content) > 50_000
