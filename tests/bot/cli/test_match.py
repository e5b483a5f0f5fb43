"""`lookalike match` as a person types it: what is printed, written, and how it exits."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bot.cli.main import EXIT_PHOTO, EXIT_SETUP, main

USAGE = 2

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lookalike(
    own_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lookalike", "--home", str(own_home), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def photo(tmp_path: Path, hopper_jpeg: bytes) -> Path:
    """Grace Hopper, smaller and recompressed."""
    path = tmp_path / "a photo, фото.jpg"
    Image.open(io.BytesIO(hopper_jpeg)).resize((384, 450)).save(path, quality=70)
    return path


def shared(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    width, height = (
        min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]) for i in (0, 1)
    )
    both = max(width, 0.0) * max(height, 0.0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def two_people(hopper_jpeg: bytes, collins_jpeg: bytes) -> Image.Image:
    """Both side by side; Collins's face is the larger one."""
    both = Image.new("RGB", (1024, 600), "white")
    both.paste(Image.open(io.BytesIO(hopper_jpeg)).resize((192, 225)), (0, 150))
    both.paste(Image.open(io.BytesIO(collins_jpeg)), (400, 40))
    return both


def test_the_json_holds_everything_that_was_promised(lookalike: Run, photo: Path) -> None:
    code, out, err = lookalike("match", str(photo), "--model", "dlib", "--top", "5", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert set(answer) == {"model", "photo", "faces", "ms"}
    assert (answer["model"], answer["photo"]) == ("dlib", str(photo))
    assert set(answer["ms"]) == {"decode", "detect", "embed", "search", "total"}
    assert answer["ms"]["total"] == pytest.approx(sum(answer["ms"].values()) / 2, abs=0.1)
    (face,) = answer["faces"]
    x, y, w, h = face["box"]
    assert 0 < x < x + w < 384
    assert 0 < y < y + h < 450
    assert 0.9 < face["confidence"] <= 1
    best, second = face["matches"]
    assert best["person"] == "Grace Hopper"
    assert second["person"] == "Eileen Collins"
    assert best["cosine"] > second["cosine"]
    assert best["score"] > 80
    assert second["score"] < 40
    assert best["author"]
    assert best["license"] == "public domain"
    assert best["category"] == "science"
    assert best["portrait"] != second["portrait"]
    assert best["source"].startswith("https://commons.wikimedia.org/")


def test_boxes_are_in_the_photos_own_pixels(
    lookalike: Run, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """Also where decoding reduced it."""
    large = tmp_path / "large.jpg"
    Image.open(io.BytesIO(hopper_jpeg)).resize((512 * 7, 600 * 7)).save(large, quality=80)
    small = tmp_path / "small.jpg"
    small.write_bytes(hopper_jpeg)
    boxes = []
    for path in (small, large):
        _, out, _ = lookalike("match", str(path), "--model", "dlib", "--json")
        boxes.append(json.loads(out)["faces"][0]["box"])
    assert shared(boxes[0], [side / 7 for side in boxes[1]]) > 0.85


@pytest.mark.parametrize(
    ("size", "height", "suffix"),
    [
        ((14_000, 420), 300, ".jpg"),
        ((38_000, 900), 320, ".jpg"),
        ((1_080, 14_000), 350, ".png"),
        ((600, 200), 130, ".jpg"),
        ((6_000, 4_000), 220, ".jpg"),
        ((12_000, 8_300), 340, ".jpg"),
    ],
)
def test_a_small_part_of_a_large_picture_is_enough(
    lookalike: Run,
    tmp_path: Path,
    hopper_jpeg: bytes,
    size: tuple[int, int],
    height: int,
    suffix: str,
) -> None:
    """In panoramas, long screenshots and large photos a face counts by the pixels of the file."""
    portrait, scale = Image.open(io.BytesIO(hopper_jpeg)), height / 600
    boxes = []
    for name, corner in (("alone.jpg", None), (f"large{suffix}", (size[0] // 3, size[1] // 5))):
        large = Image.new("RGB", size if corner else portrait.size, (120, 140, 160))
        small = portrait.resize((round(512 * scale), height)) if corner else portrait
        large.paste(small, corner or (0, 0))
        large.save(tmp_path / name, quality=85)
        code, out, err = lookalike("match", str(tmp_path / name), "--model", "dlib", "--json")
        assert (code, err) == (0, "")
        (face,) = json.loads(out)["faces"]
        assert (face["matches"][0]["person"], face["concerns"]) == ("Grace Hopper", [])
        assert face["matches"][0]["score"] > 60
        boxes.append(face["box"])
    x, y, *sides = boxes[1]
    moved = [(x - size[0] // 3) / scale, (y - size[1] // 5) / scale]
    assert shared(boxes[0], moved + [side / scale for side in sides]) > 0.65


def test_one_of_two_people_far_apart_in_a_large_photo(
    lookalike: Run, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """Where there are too few pixels for a part with both."""
    large = Image.new("RGB", (9_000, 6_000), (120, 140, 160))
    portrait = Image.open(io.BytesIO(hopper_jpeg)).resize((256, 300))
    for corner in ((300, 300), (8_300, 5_300)):
        large.paste(portrait, corner)
    large.save(tmp_path / "far.jpg", quality=85)
    code, out, _ = lookalike("match", str(tmp_path / "far.jpg"), "--model", "dlib", "--json")
    (face,) = json.loads(out)["faces"]
    assert (code, face["matches"][0]["person"], face["concerns"]) == (0, "Grace Hopper", [])


def test_the_words_name_person_score_model_and_credit(
    lookalike: Run, photo: Path, own_home: Path
) -> None:
    for said in (own_home / "cache").glob("*-not-ready"):  # to another test
        said.unlink()
    code, out, err = lookalike("match", str(photo))
    assert code == 0
    assert out.startswith("Your closest of 2: Grace Hopper\n")
    assert re.search(r"^\d+ ▰+▱* could be the very same person$", out, re.MULTILINE)
    assert "people look this alike; cosine " in out
    assert "public domain" in out
    assert "Model dlib, " in out
    assert "Only 2 people in the gallery so far" in out
    assert "lookalike models download resnet" in err  # why it is not the configured model
    assert lookalike("match", str(photo))[2] == ""  # which is said once


def test_the_card_is_written_whole(lookalike: Run, photo: Path, tmp_path: Path) -> None:
    card = tmp_path / "answer.jpg"
    code, out, _ = lookalike("match", str(photo), "--model", "dlib", "--card", str(card))
    assert code == 0
    assert str(card) in out
    with Image.open(card) as drawn:
        width, height = drawn.size
    assert width > 600
    assert height > 300
    assert not list(tmp_path.glob(".*part"))
    code, _, _ = lookalike("match", str(photo), "--card", str(card), "--style", "split")
    assert code == 0
    with Image.open(card) as drawn:
        assert drawn.size[1] > height + 200
    code, out, err = lookalike("match", str(photo), "--card", str(photo / "folder.jpg"))
    assert code != 0
    assert "folder.jpg" in err
    assert "Grace Hopper" in out  # the answer is not lost with it
    assert lookalike("match", str(photo), "--style", "split")[0] == USAGE  # of no card
    code, _, err = lookalike("match", str(tmp_path / "gone.jpg"), "--card", "card.gif")
    assert code == USAGE  # before any work
    assert ".png" in err


def test_several_faces_and_one_of_them(
    lookalike: Run, tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    path = tmp_path / "both.png"
    two_people(hopper_jpeg, collins_jpeg).save(path)
    _, out, _ = lookalike("match", str(path), "--model", "dlib", "--json")
    names = [face["matches"][0]["person"] for face in json.loads(out)["faces"]]
    assert names == ["Eileen Collins", "Grace Hopper"]  # largest first
    _, out, _ = lookalike("match", str(path), "--model", "dlib", "--face", "2", "--json")
    (face,) = json.loads(out)["faces"]
    assert face["matches"][0]["person"] == "Grace Hopper"
    code, _, err = lookalike("match", str(path), "--model", "dlib", "--face", "3")
    assert code == EXIT_PHOTO
    assert "the photo has 2" in err


def test_a_category_narrows_the_search(lookalike: Run, photo: Path) -> None:
    _, out, _ = lookalike("match", str(photo), "--category", "Space", "--json")
    assert [m["person"] for m in json.loads(out)["faces"][0]["matches"]] == ["Eileen Collins"]
    code, _, err = lookalike("match", str(photo), "--category", "chess")
    assert code == EXIT_SETUP
    assert "science" in err


def test_problems_exit_as_promised(lookalike: Run, tmp_path: Path, photo: Path) -> None:
    blank = tmp_path / "blank.jpg"
    Image.new("RGB", (300, 300), "white").save(blank)
    noise = tmp_path / "noise.jpg"
    noise.write_bytes(b"no picture")
    for path, word in ((blank, "no face"), (noise, "JPEG"), (tmp_path / "gone.jpg", "gone.jpg")):
        code, out, err = lookalike("match", str(path), "--model", "dlib")
        assert (code, out) == (EXIT_PHOTO, "")
        assert word in err
        assert "Traceback" not in err
    code, _, err = lookalike("match", str(photo), "--model", "senet")
    assert code == EXIT_SETUP
    assert "lookalike models download senet" in err
    assert lookalike("match", str(photo), "--top", "0")[0] == USAGE
    assert lookalike("match", str(photo), "--model", "vgg16")[0] == USAGE


def test_a_fresh_home_answers_and_says_how_to_get_more(photo: Path, tmp_path: Path) -> None:
    """As a process of its own; the command that is named works as it stands."""
    home = tmp_path / "a new home"
    command = [sys.executable, "-m", "bot", "match", str(photo), "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Your closest of 2: Grace Hopper" in done.stdout
    named = re.search(r"`(.* gallery download)`", done.stdout)
    assert named
    pasted = [*shlex.split(named[1]), "--list"]
    assert "bollywood" in subprocess.run(pasted, capture_output=True, text=True, check=True).stdout


def test_a_mistyped_command_is_guessed(lookalike: Run) -> None:
    for words, meant in ((["mach"], "match"), (["gallery", "lst"], "list")):
        code, _, err = lookalike(*words)
        assert code == USAGE
        assert f"Did you mean '{meant}'?" in err


def test_help_imports_nothing_heavy() -> None:
    """`lookalike --help` is to be instant, and so is the help of a command."""
    script = (
        "import sys; sys.argv = ['lookalike', '--help']\n"
        "from bot.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'cv2', 'PIL', 'openvino', 'sqlalchemy', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "match" in done.stdout
