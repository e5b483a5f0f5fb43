"""Output in whatever encoding the terminal has, of whatever a name holds."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.app import open_gallery
from bot.cli.main import lookalike
from bot.cli.output import card_option, some, write_file
from bot.logs import RedactingFormatter, printable
from bot.settings import Settings
from engine.errors import BadSettings, LookalikeError
from gallery.records import FoundPerson

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")

ENCODINGS = ("ascii", "cp1252", "latin-1", "cp437", "gbk", "utf-8")
NAMES = [
    "Zoë Saldaña",
    "李小龍",
    "محمد صلاح",
    "Lady Gaga 👩\u200d🎤",
    "\x1b[31mRed\x1b[0m\x07\u202e",
    "a\nb",
]

SCRIPT = """
import sys
from bot.cli.output import *
prepare_streams()
names = eval(sys.argv[1])
print_table(("person",), [(name,) for name in names])
for name in names: say(f"{name}  ▰▰▰▱▱  57"); say(name, err=True)
wrapped(" ".join(names))
print("\\udcff an undecodable name")
"""


def run(script: str, *arguments: str, encoding: str = "utf-8") -> tuple[bytes, bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_prints_every_name(encoding: str) -> None:
    """What the encoding lacks is replaced; nothing steers the terminal; a name is one line."""
    out, err = run(SCRIPT, repr(NAMES), encoding=encoding)
    for text in (out.decode(encoding), err.decode(encoding)):
        assert not any(ord(char) < 32 and char not in "\r\n" for char in text)
        assert "\u202e" not in text
        assert "Sald" in text
        assert "a b" in text
    assert len(err.splitlines()) == len(NAMES)
    assert ("▰▰▰▱▱" if encoding == "utf-8" else "###..") in out.decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_loses_nothing(encoding: str) -> None:
    """Letters that the encoding lacks are escaped."""
    script = "import sys; from bot.cli.output import *; print_json(eval(sys.argv[1]))"
    out, _ = run(script, repr(NAMES), encoding=encoding)
    assert json.loads(out.decode(encoding)) == NAMES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("arguments", [("--help",), ("gallery", "list"), ("models", "list")])
def test_a_full_output_is_one_sentence(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bot", *arguments]
    environment = {**os.environ, "LOOKALIKE_HOME": str(tmp_path)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, env=environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 74
    sentence = b"lookalike: the output can't be written (No space left on device)"
    assert done.stderr.splitlines() == [sentence]


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    script = "from bot.cli.main import main; import sys; sys.argv[1:] = ['--help']; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == b""
    shell = ["sh", "-c", 'exec "$0" -m bot --help <&- >&-', sys.executable]
    closed = subprocess.run(shell, stderr=subprocess.PIPE, timeout=60, check=True)
    assert closed.stderr == b""


@given(st.text())
def test_what_is_printed_steers_no_terminal(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert not any(char < " " and char not in "\t\n" for char in shown)
    assert not any("\x7f" <= char <= "\x9f" for char in shown)


def test_a_gallery_of_hostile_names_steers_no_terminal_and_no_log(
    own_home: Path, tmp_path: Path, hopper_jpeg: bytes
) -> None:
    """Names of people, files and categories, in words, JSON, errors and lines of the log."""
    evil = "Ev\x1b]0;il\x07\r\x9b31m\u202e\x7f"
    folder = tmp_path / f"people {evil}" / evil
    folder.mkdir(parents=True)
    photo = folder / f"{evil}.jpg"
    photo.write_bytes(hopper_jpeg)
    (folder / f"bad {evil}.jpg").write_bytes(b"nothing")
    table = f'name,category,{evil}\n"{evil}","{evil}",x\n"gone {evil}",y,z\n'
    (folder.parent / "people.csv").write_text(table, encoding="utf-8")
    pack = tmp_path / f"{evil}.pack"
    for words in (
        *(["gallery", "add", folder.parent], ["gallery", "list"], ["gallery", "show", evil]),
        *(["gallery", "credits"], ["gallery", "stats"], ["gallery", "verify"]),
        *(["gallery", "build"], ["gallery", "list", "--category", evil], ["gallery", "list", evil]),
        *(["gallery", "export", pack], ["gallery", "import", pack], ["match", photo]),
        *(["match", folder / f"bad {evil}.jpg"], ["match", photo, "--card", pack], ["match", pack]),
        *(["match", photo, "--category", f"x{evil}"], [evil], [f"--{evil}"], ["doctor"]),
        *(["match", folder / "none" / evil], ["evaluate", "pairs", folder.parent]),
        *(["gallery", "remove", f"x{evil}"], ["gallery", "remove", evil], ["gallery", evil]),
    ):
        for more in ([], ["--json"]):
            given = [*map(str, words), *more, "--home", str(own_home)]
            done = CliRunner().invoke(lookalike, given)
            shown = done.output + printable(str(done.exception))  # as ``main`` says it
            assert not _STEERING.search(shown), (words, shown)
            assert done.exception is None or isinstance(
                done.exception, (SystemExit, LookalikeError)
            )
    record = logging.makeLogRecord({"name": "bot", "msg": f"about {evil}", "reason": evil})
    for as_json in (False, True):
        line = RedactingFormatter(as_json=as_json).format(record)
        assert not _STEERING.search(line)
        assert "\n" not in line


HOSTILE = [
    *("\x1b[2J\x1b]0;title\x07", "\u202eturned round", "one\ntwo\r\x85three\tfour", "[bold]b[/x]"),
    *("\x9b31mred", "a\u0301" * 20 + "👩\u200d🎤", "寛" * 60),
]
ON_A_TERMINAL = """
import sys
from bot.app import open_gallery
from bot.cli.main import lookalike
from bot.cli.output import prepare_streams
prepare_streams()
for command in ("gallery list", "models list"):
    lookalike([*command.split(), "--home", sys.argv[1]], standalone_mode=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("columns", [40, 200])
def test_tables_of_hostile_names_on_a_terminal(own_home: Path, columns: int) -> None:
    """A line a person where they fit, nothing beyond the edge, no markup, no steering."""
    import fcntl
    import pty
    import struct
    import termios

    from rich.cells import cell_len

    with open_gallery(Settings(home=own_home)) as gallery, gallery.transaction() as changes:
        for name in HOSTILE:
            changes.add_person(FoundPerson(key=f"name:{name}", name=name, categories=(name,)))
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-c", ON_A_TERMINAL, str(own_home)]
    environment = {**os.environ, "TERM": "xterm", "PYTHONUTF8": "1"}
    environment.pop("COLUMNS", None)  # which would count for more than the terminal's
    process = subprocess.Popen(command, stdout=end, stderr=end, stdin=end, env=environment)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while some_bytes := os.read(terminal, 65_536):
            shown += some_bytes
    os.close(terminal)
    assert process.wait(60) == 0, shown
    text = re.sub("\x1b\\[[01]m", "", shown.decode())  # bold, of the headings
    lines = text.replace("\r\n", "\n").split("\n")
    assert not any(_STEERING.search(line) or "\t" in line for line in lines), text
    assert max(map(cell_len, lines[: lines.index("")])) <= columns
    assert lines[0].startswith("person")
    if columns == 200:
        assert lines[len(HOSTILE) + 3] == "9 people", text  # after headings, and two more


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.png", "PNG"), ("a.webp", "WEBP")]
)
def test_a_picture_is_what_its_name_says(tmp_path: Path, name: str, kind: str) -> None:
    write_file(tmp_path / name, jpeg())
    with Image.open(tmp_path / name) as picture:
        assert (picture.format, picture.size) == (kind, (8, 6))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_replaces_the_last_one_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.html"
    for content in (None, b"first", b"second"):
        write_file(file, content)

    assert file.read_bytes() == b"second"
    assert list(file.parent.iterdir()) == [file]


def test_places_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(BadSettings, match="is a folder"):
        write_file(tmp_path, None)
    for content in (None, b"page"):
        with pytest.raises(BadSettings, match="can't be written"):
            write_file(tmp_path / "file" / "report.html", content)


@pytest.mark.parametrize("name", ["card.gif", "card.pdf", "card"])
def test_another_ending_is_refused_before_any_work(name: str) -> None:
    @click.command()
    @card_option("--card", "A picture.")
    def command(card: Path | None) -> None:
        raise AssertionError(card)

    result = CliRunner().invoke(command, ["--card", name])
    assert result.exit_code == 2
    assert "it must end in .jpg, .jpeg, .png or .webp" in " ".join(result.output.split())


def test_a_few_of_many_names() -> None:
    names = [str(number) for number in range(7)]
    assert some(names) == "0, 1, 2, 3, 4 and 2 more"
    assert some(names, 6) == "0, 1, 2, 3, 4, 5 and 1 more"
    assert some(names[:5]) == "0, 1, 2, 3, 4"
