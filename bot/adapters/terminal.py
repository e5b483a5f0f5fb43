"""The terminal: a line is a photo's path, a command, or the number of a button."""

import asyncio
import contextlib
import getpass
import itertools
import locale
import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from bot.adapters import or_stop
from bot.background import in_daemon_thread
from bot.conversation import Conversation
from bot.logs import printable
from bot.values import Attachment, Button, Limits, Reply, Request, Sender, photo_number
from engine.errors import NotAnImage

LIMITS = Limits(text_chars=100_000, caption_chars=100_000, label_chars=60, buttons_per_row=8)
LEAVE = frozenset({"/quit", "/exit", "/bye"})


class TerminalAdapter:
    """The conversation on standard input and output, of a terminal or of pipes.

    A card goes beside its photo; where it can't be written there, and other files, into ``home``.
    """

    def __init__(self, conversation: Conversation, *, home: Path) -> None:
        self._conversation, self._home = conversation, home
        user = "somebody"
        with contextlib.suppress(OSError, KeyError):  # a container without a user database
            user = getpass.getuser()
        self._sender = Sender("terminal", user, chat_id="terminal", language=_language())
        self._buttons: tuple[Button, ...] = ()
        self._photos: tuple[Path, ...] = ()

    async def run(self, stop: asyncio.Event) -> None:
        """Answers line by line until the input ends, ``/quit`` or ``stop``."""
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - importing it gives input() a history
            greeting = Request(self._sender, command="start")
            self._show(await self._conversation.answer(greeting, LIMITS), ())
        while not stop.is_set():
            line = await or_stop(in_daemon_thread(_read_line), stop)
            if line is None or line.strip() in LEAVE:
                return
            if line.strip():
                await self.say(line.strip())

    async def say(self, line: str) -> Reply:
        """Answers one line and shows the reply."""
        request, photos = self._parse(line)
        reply = await self._conversation.answer(request, LIMITS)
        self._show(reply, photos)
        return reply

    def _parse(self, line: str) -> tuple[Request, tuple[Path, ...]]:
        if line.isdecimal() and 1 <= int(line) <= len(self._buttons):
            action = self._buttons[int(line) - 1].action
            photos = tuple(map(_attachment, self._photos[photo_number(action) - 1 :]))
            return Request(self._sender, photos=photos, action=action), self._photos
        command = None
        named = re.match(r"/([^\s/.\\]*)(?:\s|$)", line)  # other lines with a slash are paths
        if named:
            command, line = named[1].lower(), line[named.end() :]
        words, paths = _split(line)
        photos = tuple(map(_attachment, paths))
        if command is None and not paths and " " not in line and re.search(r"[./\\]", line):
            photos = (_attachment(Path(line)),)  # looks like a path, and can't be read
        return Request(self._sender, command, words if command is not None else "", photos), paths

    def _show(self, reply: Reply, photos: tuple[Path, ...]) -> None:
        def echo(text: str = "") -> None:
            # Left to itself, click writes UTF-8 where the stream says ASCII.
            click.echo(printable(text), file=sys.stdout)

        echo(reply.text)
        if reply.picture is not None:
            echo(f"→ {self._write(reply.picture.jpeg, 'lookalike.jpg', photos)}")
        if film := reply.animation:
            echo(f"→ {self._write(film.content, film.filename, photos)}")
        if file := reply.document:
            echo(f"→ {self._write(file.content, file.filename, ())}")
        if reply.picture is not None or reply.animation is not None or reply.buttons:
            self._photos = photos
            self._buttons = tuple(button for row in reply.buttons for button in row)
        if reply.buttons:
            labels = enumerate(self._buttons, 1)
            echo("  ".join(f"[{number}] {button.label}" for number, button in labels))
        echo()

    def _write(self, content: bytes, name: str, photos: tuple[Path, ...]) -> Path:
        """Writes a card or film beside its photo, or into the data folder; returns its path.

        None takes another's place: after ``photo.lookalike.jpg`` comes ``photo.lookalike-2.jpg``.
        """
        beside = [photo.with_name(f"{photo.stem}.{name}") for photo in photos[:1]]
        for place in (*beside, self._home / name):
            with contextlib.suppress(OSError):
                numbered = (place.with_stem(f"{place.stem}-{at}") for at in itertools.count(2))
                free = next(one for one in itertools.chain([place], numbered) if not one.exists())
                free.write_bytes(content)
                return free
        raise NotAnImage(f"the file can't be written to {self._home}")


def _attachment(path: Path) -> Attachment:
    async def fetch() -> bytes:
        try:
            return await asyncio.to_thread(path.read_bytes)
        except (OSError, ValueError):
            raise NotAnImage("the file can't be read") from None

    return Attachment(fetch)


def _split(line: str) -> tuple[str, tuple[Path, ...]]:
    """Words, and the files among them: quoted as in a shell, or one unquoted at the end."""
    starts = [0, *(at + 1 for at, character in enumerate(line) if character == " ")]
    for start in starts:
        whole = _as_path(line[start:])
        if whole is not None and not _as_path(line[:start]):
            words, before = _split(line[:start]) if start else ("", ())
            return words, (*before, whole)
    parts = line.split()
    with contextlib.suppress(ValueError):  # an apostrophe is no quotation mark
        parts = shlex.split(line)
    found = [(part, _as_path(part)) for part in parts]
    words = " ".join(part for part, path in found if path is None)
    return words, tuple(path for _, path in found if path is not None)


def _as_path(text: str) -> Path | None:
    text = text.strip().strip("'\"")
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    try:
        path = Path(text).expanduser()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _read_line() -> str | None:
    with contextlib.suppress(EOFError):
        return input("> " if sys.stdin.isatty() else "")
    return None


def _language() -> str | None:
    # ``locale.getlocale`` would know it only if that locale were installed.
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.partition(".")[0].replace("_", "-")
    return (locale.getlocale()[0] or "").replace("_", "-") or None
