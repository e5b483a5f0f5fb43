"""The terminal: a line is a photo's path, a command, or the number of a button."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import locale
import os
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from bot.adapters import or_stop
from bot.background import in_daemon_thread
from bot.conversation import Conversation
from bot.values import Attachment, Button, Limits, Reply, Request, Sender
from engine.errors import NotAnImage

LIMITS = Limits(text_chars=100_000, caption_chars=100_000, label_chars=60, buttons_per_row=8)
LEAVE = frozenset({"/quit", "/exit", "/bye"})


class TerminalAdapter:
    """The conversation on standard input and output, of a terminal or of pipes.

    Args:
        conversation: Answers.
        home: Where a card goes that can't be written beside its photo, and other files.
    """

    name = "terminal"

    def __init__(self, conversation: Conversation, *, home: Path) -> None:
        self._conversation = conversation
        self._home = home
        self._sender = Sender(
            platform="terminal",
            user_id=_user(),
            chat_id="terminal",
            language=_language(),
        )
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
        """The request in a line, and the photos it is about."""
        if line.isdecimal() and 1 <= int(line) <= len(self._buttons):
            action = self._buttons[int(line) - 1].action
            photos = tuple(map(_attachment, self._photos))
            return Request(self._sender, photos=photos, action=action), self._photos
        if _is_command(line):
            command, _, rest = line[1:].partition(" ")
            words, paths = _split(rest)
            photos = tuple(map(_attachment, paths))
            return Request(self._sender, command.lower(), words, photos), paths
        _, paths = _split(line)
        unread = (Path(line),) if not paths and _looks_like_path(line) else ()
        return Request(self._sender, photos=tuple(map(_attachment, paths or unread))), paths

    def _show(self, reply: Reply, photos: tuple[Path, ...]) -> None:
        click.echo(reply.text)
        if reply.picture is not None:
            click.echo(f"→ {self._write(reply.picture.jpeg, 'lookalike.jpg', photos)}")
        if film := reply.animation:
            click.echo(f"→ {self._write(film.content, film.filename, photos)}")
        if file := reply.document:
            click.echo(f"→ {self._write(file.content, file.filename, ())}")
        if reply.picture is not None or reply.animation is not None or reply.buttons:
            self._photos = photos
            self._buttons = tuple(button for row in reply.buttons for button in row)
        if reply.buttons:
            labels = enumerate(self._buttons, 1)
            click.echo("  ".join(f"[{number}] {button.label}" for number, button in labels))
        click.echo()

    def _write(self, content: bytes, name: str, photos: tuple[Path, ...]) -> Path:
        """Writes a card or film beside its photo, or into the data folder; returns its path."""
        places = [self._home / name]
        if photos:
            places.insert(0, photos[0].with_name(f"{photos[0].stem}.{name}"))
        for place in places:
            with contextlib.suppress(OSError):
                place.write_bytes(content)
                return place
        raise NotAnImage(f"the file can't be written to {places[-1].parent}")


def _attachment(path: Path) -> Attachment:
    async def fetch() -> bytes:
        try:
            return await asyncio.to_thread(path.read_bytes)
        except (OSError, ValueError):
            raise NotAnImage("the file can't be read") from None

    return Attachment(fetch)


def _is_command(line: str) -> bool:
    """Whether it is ``/name ...`` and no path that begins with a slash."""
    if not line.startswith("/"):
        return False
    first = line[1:].split(maxsplit=1)[0] if line[1:].strip() else ""
    return not any(mark in first for mark in "/.\\")


def _split(line: str) -> tuple[str, tuple[Path, ...]]:
    """Words, and the files among them: quoted as in a shell, or one unquoted at the end."""
    starts = [0, *(at + 1 for at, character in enumerate(line) if character == " ")]
    for start in starts:
        whole = _as_path(line[start:])
        if whole is not None and not _as_path(line[:start]):
            words, before = _split(line[:start]) if start else ("", ())
            return words, (*before, whole)
    try:
        parts = shlex.split(line)
    except ValueError:  # an apostrophe is no quotation mark
        parts = line.split()
    found = [(part, _as_path(part)) for part in parts]
    words = " ".join(part for part, path in found if path is None)
    return words, tuple(path for _, path in found if path is not None)


def _as_path(text: str) -> Path | None:
    """The file of that name, if there is one."""
    text = text.strip().strip("'\"")
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    try:
        path = Path(text).expanduser()
        return path if path.is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _looks_like_path(line: str) -> bool:
    return " " not in line and ("." in line or "/" in line or "\\" in line)


def _read_line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _language() -> str | None:
    """The language of messages, as POSIX names it: not a setting of ours, so not in the settings.

    ``locale.getlocale`` would know it only if that locale were installed.
    """
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return value.partition(".")[0].replace("_", "-")
    return (locale.getlocale()[0] or "").replace("_", "-") or None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "somebody"
