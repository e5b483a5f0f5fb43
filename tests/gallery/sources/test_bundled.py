"""The starter gallery: two people, free to use, from packages that are installed."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image

from engine.errors import TooLarge
from gallery.sources.bundled import bundled_portraits, what_is_missing


def test_two_people_with_author_and_licence() -> None:
    """Who, by whom, under which licence and from where."""
    hopper, collins = bundled_portraits()
    assert hopper.person.name == "Grace Hopper"
    assert collins.person.name == "Eileen Collins"
    for portrait in (hopper, collins):
        assert portrait.licence == "public domain"
        assert portrait.author
        for url in (portrait.licence_url, portrait.source_url):
            assert url is not None
            assert url.startswith("https://")
    assert what_is_missing() is None


def test_photos_are_those_of_the_packages(hopper_jpeg: bytes) -> None:
    """The same bytes every time, so that the gallery knows them again."""
    hopper, collins = bundled_portraits()
    assert hopper.read(10**7) == hopper_jpeg
    picture = Image.open(io.BytesIO(collins.read(10**7)))
    assert picture.size == (512, 512)


def test_limits_of_the_reader_are_kept() -> None:
    with pytest.raises(TooLarge, match="Grace Hopper"):
        bundled_portraits()[0].read(1000)


def test_importing_is_cheap_and_one_package_is_enough() -> None:
    """Without scikit-image there is Grace Hopper and a sentence; nothing heavy is imported."""
    script = (
        "import sys; sys.modules['skimage'] = None;"
        "from gallery.sources.bundled import bundled_portraits, what_is_missing;"
        "print([one.person.name for one in bundled_portraits()], what_is_missing());"
        "assert 'matplotlib' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.startswith("['Grace Hopper'] Eileen Collins is missing")
    assert "lookalike[demo]" in run.stdout
