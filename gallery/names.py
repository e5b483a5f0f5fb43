"""How names are compared."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["category_name", "folded"]


def folded(name: str) -> str:
    """A name for comparing: no case, no Latin, Greek or Cyrillic accents, single spaces."""
    spread = unicodedata.normalize("NFKD", name)
    bare = re.sub("[\u0300-\u036f]", "", spread).replace("_", " ")
    return " ".join(unicodedata.normalize("NFKC", bare).casefold().split())


def category_name(words: str) -> str:
    """A category as it is kept: lower case, single spaces, Unicode NFC."""
    return " ".join(unicodedata.normalize("NFC", words).replace("_", " ").casefold().split())
