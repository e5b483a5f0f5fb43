"""Seals what a row says, so that the database without the key says nothing.

AES-256-GCM (NIST SP 800-38D) under a key of the person's own, with a random 96-bit nonce; table
and key are bound to the text, so that a row moved elsewhere does not open.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import SetupProblem

__all__ = ["seal", "unseal"]

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
