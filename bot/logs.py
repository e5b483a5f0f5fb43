"""One line per event on standard error, as ``key=value``, and no secret or id in any of them.

Three lines of defence: other people's libraries speak from WARNING on (their INFO and DEBUG lines
hold URLs with the token, and whole updates); our own lines are made of ``extra`` fields that hold
no id; and every finished line is searched for secrets before it leaves.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

OURS = ("bot", "engine", "gallery", "migrations")
REDACTED = "[redacted]"
SHORTEST_SECRET = 6

# Telegram's token: bot id, colon, 35 characters. Discord's: three parts, the first the bot's id.
_TOKENS = re.compile(
    r"\d{6,12}:[A-Za-z0-9_-]{30,}|[A-Za-z0-9_-]{20,32}\.[A-Za-z0-9_-]{5,8}\.[A-Za-z0-9_-]{25,}"
)
# Ids of people, chats and messages, in lines that are not ours.
_IDS = re.compile(r"(?<![\w.])-?\d{5,20}(?![\w.])|(?<=[=:/ ,(\[{'\"])-?\d{5,20}")
# All but tab and newline, and the signs that end a line or turn text around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]")
_PLAIN = re.compile(r"[\w.:/+%-]+")
_STANDARD = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": ""}
)


class RedactingFormatter(logging.Formatter):
    """A record as one line of ``key=value`` pairs, or of JSON, without secrets, such as tokens."""

    def __init__(self, secrets: Iterable[str] = (), *, as_json: bool = False) -> None:
        super().__init__()
        self._as_json = as_json
        known = sorted((s for s in secrets if len(s) >= SHORTEST_SECRET), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, known))) if known else None

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        ours = record.name.partition(".")[0] in OURS
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage() if ours else _IDS.sub(REDACTED, record.getMessage()),
        }
        if not ours:
            fields["library"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            fields["fault"] = where(record.exc_info[1])
        if ours:
            fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        if self._as_json:
            line = as_json(fields)
        line = _TOKENS.sub(REDACTED, line)
        return line if self._secrets is None else self._secrets.sub(REDACTED, line)


def set_up_logs(
    level: str,
    *,
    secrets: Iterable[str] = (),
    as_json: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Sends our lines from ``level`` on, and everybody else's from WARNING on, to one stream."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(RedactingFormatter(secrets, as_json=as_json))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    # A library may have set a level of its own, or will, which would win over the root's.
    named = ("httpx", "httpcore", "telegram", "discord", "nicegui", "uvicorn")
    for name in (*logging.root.manager.loggerDict, *named):
        library = logging.getLogger(name)
        if name in named or (library.name.partition(".")[0] not in OURS and library.level):
            library.setLevel(max(library.level, logging.WARNING))
    logging.captureWarnings(capture=True)


def where(problem: BaseException) -> str:
    """Type and place of a fault, from the innermost call; never its message.

    A message may quote what was sent; the names of files and functions may not.
    """
    frames = traceback.extract_tb(problem.__traceback__)
    calls = " < ".join(
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
        for frame in reversed(frames[-6:])
    )
    cause = problem.__cause__
    because = f" from {type(cause).__name__}" if cause is not None else ""
    return f"{type(problem).__name__}{because} at {calls}" if calls else type(problem).__name__


def printable(text: str) -> str:
    """The text without characters that steer a terminal; line ends and tabs stay."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def as_json(content: object, **more: Any) -> str:
    """JSON that steers no terminal: its own escapes leave out some controls; letters stay."""
    text = json.dumps(content, ensure_ascii=False, default=str, **more)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else as_json(text)
