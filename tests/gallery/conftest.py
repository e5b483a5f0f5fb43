"""A real engine, and folders of made-up people cut from the two free portraits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from variants import Variant, variants_of

from engine.engine import Engine
from gallery.gallery import Gallery


def make_engine(cache_folder: Path) -> Engine:
    """An engine as the bot has it, with dlib's network only."""
    from engine.engine import load_backbone
    from engine.mtcnn import Detector

    return Engine(
        load_detector=Detector,
        load_backbone=lambda name: load_backbone(
            name, models_folder=cache_folder / "models", cache_folder=cache_folder
        ),
    )


@pytest.fixture(scope="session")
def engine(starter_home: Path) -> Engine:
    return make_engine(starter_home / "cache")


# What a gallery does wherever it is kept, and which of these tests look into a folder's files.
_EVERYWHERE = frozenset({"test_build", "test_never_again"})
_DOWNLOADED_EVERYWHERE = frozenset(
    {
        "test_a_network_lost_at_any_moment_costs_nothing",
        "test_a_second_run_asks_for_nothing",
        "test_two_downloads_at_once_are_refused",
        "test_who_asked_to_be_removed_is_not_even_asked_about",
    }
)
_IN_A_FOLDER = frozenset(
    {
        "test_a_damaged_calibration_is_noticed_and_build_mends_it",
        "test_a_damaged_thumbnail_is_dropped_when_its_vector_is_needed",
        "test_a_folder_that_cannot_be_written_is_a_sentence",
        "test_a_gallery_moves_as_one_folder",
        "test_adding_again_changes_nothing",
        "test_build_sweeps_files_that_nothing_refers_to",
        "test_damaged_vectors_are_noticed_and_build_makes_them_anew",
        "test_one_process_writes_at_a_time",
        "test_others_see_at_once_what_was_changed",
        "test_vectors_of_an_older_recipe_are_replaced",
        "test_whoever_is_removed_is_not_found_and_build_drops_their_vectors",
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Lets tests that ask for a gallery run on PostgreSQL, too."""
    module, test = metafunc.module.__name__, metafunc.function.__name__
    anywhere = module in _EVERYWHERE and test not in _IN_A_FOLDER
    if "gallery" in metafunc.fixturenames and (anywhere or test in _DOWNLOADED_EVERYWHERE):
        metafunc.parametrize("gallery", ["folder", "postgres"], indirect=True)


@pytest.fixture
def gallery(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gallery]:
    """An empty gallery in a folder; where ``pytest_generate_tests`` says so, on PostgreSQL."""
    shared = getattr(request, "param", "folder") == "postgres"
    url = request.getfixturevalue("postgres").gallery() if shared else None
    with Gallery.open(tmp_path / "home" / "gallery", url) as opened:
        yield opened


@pytest.fixture(scope="session")
def variant(hopper_jpeg: bytes, collins_jpeg: bytes) -> Variant:
    """The n-th photo: even ones of Grace Hopper, odd ones of Eileen Collins, no two alike."""
    return variants_of(hopper_jpeg, collins_jpeg)


@pytest.fixture
def blank_jpeg() -> bytes:
    """A photo of nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200), "teal").save(buffer, "JPEG")
    return buffer.getvalue()
