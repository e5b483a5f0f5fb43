"""`lookalike chat` in a pipe, and what its lines mean."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from films import seen
from homes import copy_home
from PIL import Image
from talking import chatting, side_by_side

from bot.adapters.terminal import TerminalAdapter


def test_a_conversation_in_a_pipe(
    own_home: Path, tmp_path: Path, hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """A path, a button's number, commands with paths, a mistake; the card lies beside the photo.

    A path may be no text of the input's encoding.
    """
    folder = tmp_path / "my photos"
    folder.mkdir()
    (folder / "both.jpg").write_bytes(side_by_side(hopper_jpeg, collins_jpeg))
    for name in ("it's me.jpg", "\udce9.jpg"):
        (folder / name).write_bytes(hopper_jpeg)
    lines = (
        "both.jpg",
        "1",
        "it's me.jpg",
        f"/top 2 {folder / 'both.jpg'}",
        "/compare 'both.jpg' \"it's me.jpg\"",
        "nothing.jpg",
        "\udce9.jpg",
        "/mydata",
        "/modle",
        "/quit",
        "/never said",
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("LOOKALIKE_")}
    done = subprocess.run(
        [sys.executable, "-m", "bot", "chat", "--home", str(own_home)],
        input="\n".join(lines) + "\n",
        env={**inherited, "LOOKALIKE_MODELS__FETCH": "false", "PYTHONIOENCODING": "utf-8"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    said = done.stdout
    assert done.stderr == ""
    assert "Face 1 of 2" in said
    assert "Face 2 of 2" in said
    assert "2. Eileen Collins:" in said or "2. Grace Hopper:" in said
    assert "How alike?" in said
    assert "can't read that file as a photo" in said
    assert "Did you mean /model?" in said
    assert "never" not in said
    assert (own_home / "lookalike-mydata.json").read_text(encoding="utf-8").startswith("{")
    cards = sorted(path.name for path in folder.glob("*.lookalike.jpg"))
    assert cards == ["both.lookalike.jpg", "it's me.lookalike.jpg", "\udce9.lookalike.jpg"]
    for card in cards:
        with Image.open(folder / card) as picture:
            assert min(picture.size) > 500


async def test_an_empty_input_ends_at_once(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with os.fdopen(os.open(os.devnull, os.O_RDONLY)) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        async with chatting(own_home) as conversation:
            adapter = TerminalAdapter(conversation, home=own_home)
            await asyncio.wait_for(adapter.run(asyncio.Event()), 30)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def photos(tmp_path: Path, hopper_jpeg: bytes) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b c.jpg", "ü.jpg"):
        (folder / name).write_bytes(hopper_jpeg)
    return folder


async def test_a_line_is_a_path_however_it_is_written(
    starter_home: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bare, quoted, escaped, as a drop of the mouse or as a URL, with the words of a command."""
    home = copy_home(starter_home, tmp_path / "home")
    async with chatting(home) as conversation:
        adapter = TerminalAdapter(conversation, home=home)
        for line in (
            f"{photos / 'a.jpg'}",
            f"{photos / 'b c.jpg'}",
            f"'{photos / 'b c.jpg'}'",
            f"{photos}/b\\ c.jpg",
            f"file://{photos}/b%20c.jpg",
            f"{photos / 'ü.jpg'}",
            f"/lookalike {photos / 'b c.jpg'}",
            f"/lookalike 2 '{photos / 'b c.jpg'}'",
        ):
            reply = await adapter.say(line)
            assert reply.answers, line
            assert reply.answers[0].matches[0].name == "Grace Hopper"
        assert len(reply.answers[0].matches) == 2
        shown = capsys.readouterr().out
        assert f"→ {photos / 'b c.lookalike.jpg'}\n" in shown
        assert f"→ {photos / 'b c.lookalike-6.jpg'}\n" in shown  # no card takes another's place
        assert "[1] More matches" in shown
        assert "path of a photo" in (await adapter.say("who am I")).text
        assert "can't read" in (await adapter.say("x" * 5000 + ".jpg")).text
        assert "can't read" in (await adapter.say("\0.jpg")).text


async def test_the_terminals_language_is_spoken(
    starter_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_home(starter_home, tmp_path / "home")
    async with chatting(home) as conversation:
        for value, word in (("es_MX.UTF-8", "Tus ajustes"), ("ru_RU", "Ваши"), ("C", "Your")):
            monkeypatch.setenv("LC_ALL", value)
            adapter = TerminalAdapter(conversation, home=home)
            assert (await adapter.say("/settings")).text.startswith(word)


async def test_a_card_that_cannot_lie_beside_its_photo_lies_in_the_data_folder(
    starter_home: Path,
    tmp_path: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = copy_home(starter_home, tmp_path / "home")
    # The card's name would be too long; modes would not stop root.
    photo = (photos / "a.jpg").rename(photos / f"{'x' * 250}.jpg")
    async with chatting(home) as conversation:
        await TerminalAdapter(conversation, home=home).say(str(photo))
    assert f"→ {home / 'lookalike.jpg'}" in capsys.readouterr().out
    assert (home / "lookalike.jpg").read_bytes().startswith(b"\xff\xd8")


async def test_it_stops_when_told(
    starter_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = copy_home(starter_home, tmp_path / "home")
    reader, writer = os.pipe()
    with os.fdopen(reader) as silent:
        monkeypatch.setattr(sys, "stdin", silent)
        async with chatting(home) as conversation:
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, stop.set)
            await asyncio.wait_for(TerminalAdapter(conversation, home=home).run(stop), 5)
        os.close(writer)  # the thread that waits for a line sees the end of the input
        await asyncio.sleep(0.05)


async def test_a_film_lies_beside_its_photo(
    starter_home: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the terminal says, and its button still knows the photo."""
    home = copy_home(starter_home, tmp_path / "home")
    async with chatting(home) as conversation:
        terminal = TerminalAdapter(conversation, home=home)
        await terminal.say(f"/morph {photos / 'a.jpg'}")
        film = photos / "a.lookalike.mp4"
        assert f"→ {film}" in capsys.readouterr().out
        assert len(seen(film.read_bytes()).frames) > 40
        await terminal.say("1")
    assert f"→ {photos / 'a.lookalike.jpg'}" in capsys.readouterr().out
