"""Keys: from a user id to what rows are filed and sealed under.

Nothing outside this module sees a user id: rows, queues and memories are keyed by
HMAC-SHA256(secret, platform and id), and the secret lies apart from the database. Rows are sealed
with AES-256-GCM (NIST SP 800-38D) under a key of the person's own, with a random 96-bit nonce;
table and key are bound to the text, so that a row moved elsewhere does not open.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bot.values import Sender
from engine.errors import BadSettings, SetupProblem

__all__ = ["LEAST_KEY_CHARS", "Identity", "Who", "seal", "secret_key", "unseal"]

LEAST_KEY_CHARS = 32


@dataclass(frozen=True, slots=True)
class Who:
    """A person in a chat, as keys of 32 bytes.

    Attributes:
        user: Of the person on their platform.
        chat: Of the person in this chat; two people in one chat have unrelated keys.
        room: Of the chat, the same for everybody in it; in memory only, never in a database.
    """

    user: bytes = field(repr=False)
    chat: bytes = field(repr=False)
    room: bytes = field(repr=False)


class Identity:
    """Derives keys from one secret.

    Args:
        secret: At least 32 characters or bytes of randomness.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def who(self, sender: Sender) -> Who:
        """The keys of a sender."""
        return Who(
            user=self._keyed("user", sender.platform, sender.user_id),
            chat=self._keyed("chat", sender.platform, sender.user_id, sender.chat_id),
            room=self._keyed("room", sender.platform, sender.chat_id),
        )

    def tag(self, purpose: str, who: Who) -> str:
        """A short proof that a button was made for that person: 12 hexadecimal digits."""
        return self._keyed("tag", purpose, who.user.hex()).hex()[:12]

    def fingerprint(self) -> str:
        """A hash that identifies the secret without revealing it."""
        return self._keyed("fingerprint").hex()

    def sealing_key(self, user: bytes) -> bytes:
        """The AES-256 key of a person's rows."""
        return self._keyed("seal", user.hex())

    def cookie_secret(self) -> str:
        """Signs the cookies by which the web chat tells one browser from another."""
        return self._keyed("cookie").hex()

    def _keyed(self, *parts: str) -> bytes:
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        message = b"".join(
            len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts)
        )
        return hmac.digest(self._secret, message, hashlib.sha256)


def secret_key(path: Path, given: str | None = None) -> bytes:
    """The secret: the given one, else that of the file, made at first use.

    The file is made complete, for its owner alone (mode 600), and by one process only, however
    many start at once.

    Raises:
        BadSettings: If the given one is too short, or the file can't be read, made or used.
    """
    if given is not None:
        if len(given) < LEAST_KEY_CHARS:
            raise BadSettings(f"database.key has fewer than {LEAST_KEY_CHARS} characters")
        return given.encode()
    try:
        if not path.exists():
            _make(path)
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise BadSettings(f"the secret key {path} can't be used: {reason}") from None
    if len(found) < LEAST_KEY_CHARS:
        raise BadSettings(f"the secret key {path} is too short; put the right one back")
    return found.encode()


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # fails if somebody else was first; rename would overwrite
    finally:
        draft.unlink()


NONCE_BYTES = 12


def seal(key: bytes, place: str, content: dict[str, Any]) -> bytes:
    """The content as nonce and ciphertext.

    Args:
        key: 32 bytes.
        place: Where the row belongs; the same is needed to open it.
        content: What JSON can hold.
    """
    nonce = os.urandom(NONCE_BYTES)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return nonce + AESGCM(key).encrypt(nonce, text, place.encode())


def unseal(key: bytes, place: str, sealed: bytes) -> dict[str, Any]:
    """What was sealed.

    Raises:
        SetupProblem: If it was sealed with another key, for another place, or was changed.
    """
    try:
        text = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError):
        raise SetupProblem("a row of the database was changed or sealed elsewhere") from None
    content: dict[str, Any] = json.loads(text)
    return content
