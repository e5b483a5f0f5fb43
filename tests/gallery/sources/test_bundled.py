"""The starter gallery: two people, free to use, from packages that are installed."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import Image

from engine.errors import TooLarge
from gallery.sources.bundled import bundled_portraits


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


def test_photos_come_with_the_program() -> None:
    """Whole pictures, the same bytes every time, so that the gallery knows them again."""
    for portrait, size in zip(bundled_portraits(), ((512, 600), (512, 512)), strict=True):
        data = portrait.read(60_000)
        assert Image.open(io.BytesIO(data)).size == size
        assert portrait.read(60_000) == data


def test_limits_of_the_reader_are_kept() -> None:
    with pytest.raises(TooLarge, match="Grace Hopper"):
        bundled_portraits()[0].read(1000)


def test_no_other_package_is_needed() -> None:
    """Two people without matplotlib and scikit-image."""
    script = (
        "import sys; sys.modules['skimage'] = sys.modules['matplotlib'] = None;"
        "from gallery.sources.bundled import bundled_portraits;"
        "print([one.person.name for one in bundled_portraits() if one.read(60_000)])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "['Grace Hopper', 'Eileen Collins']\n"
