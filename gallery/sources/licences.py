"""Which pictures of Commons may be kept, and who made them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

__all__ = ["is_free", "plain_text", "web_address"]

# Families of https://commons.wikimedia.org/wiki/Commons:Licensing by their short names, as the
# API gives them: "CC BY-SA 3.0 de", "Public domain", "Attribution", "OGL 3", "GODL-India".
_FREE: Final = re.compile(
    r"""
      pd\b | public\ domain | no\ restrictions | no\ known\ (copyright\ )?restrictions
    | cc[ -]?0 | cc[ -]zero | cc[ -]pddc | cc[ -]pd\b
    | cc[ -]by([ -]sa)? ([ -]\d | \b(?![ -]?n)) | cc[ -]sa\b
    | creative\ commons\ (zero | attribution | public\ domain)
    | attribution\b | copyrighted\ free\ use | free\ use\b
    | fal\b | free\ art | licence\ art\ libre
    | l?gpl | agpl | gfdl | gnu\ (lesser\ | affero\ )? (general\ public | free\ documentation)
    | mit\b | bsd\b | apache\b | wtfpl | isc\b | mpl\b | beerware | cecill
    | ogl\b | open\ government\ licen[cs]e | open\ parliament\ licen[cs]e | opl\b
    | godl | kogl(\ type)?[ -]1\b | nlod | dl-de | iodl | etalab | licence\ ouverte
    | open\ data\ commons | odbl | data\ licen[cs]e\ germany
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_FREE: Final = re.compile(
    r"\bnc\b|\bnd\b|non[ -]?commercial|no[ -]?deriv|fair use|non[ -]?free|all rights reserved"
    r"|permission|unknown",
    re.IGNORECASE,
)

_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_SILENT: Final = frozenset({"script", "style", "template", "noscript"})
_VOID: Final = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"]
)
_BREAKS: Final = frozenset(["br", "p", "div", "li", "tr", "td", "th", "ul", "ol", "table", "dd"])


def is_free(short_name: str) -> bool:
    """Whether a licence lets anybody keep, change and show the picture, also for money."""
    name = " ".join(short_name.split())
    return bool(_FREE.match(name)) and not _NOT_FREE.search(name)


def plain_text(html: str, most_letters: int = 1000) -> str:
    """The words that a browser would show, on one line."""
    reader = _Words()
    reader.feed(html)
    reader.close()
    text = " ".join("".join(reader.words).split())
    return text if len(text) <= most_letters else text[: most_letters - 1].rstrip() + "…"


def web_address(text: str, most_letters: int = 1000) -> str | None:
    """An http or https address; ``//host/path`` becomes https. None for anything else."""
    text = text.strip()
    if text.startswith("//"):
        text = f"https:{text}"
    usable = re.fullmatch(r"https?://[^\s<>\"]+", text, re.IGNORECASE)
    return text if usable and len(text) <= most_letters else None


class _Words(HTMLParser):
    """Collects text, but none that is hidden."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._hidden: list[str] = []  # tags open inside a hidden one, outermost first

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BREAKS:
            self.words.append(" ")
        if tag in _VOID:
            return
        style = dict(attrs).get("style") or ""
        if self._hidden or tag in _SILENT or _HIDDEN.search(style):
            self._hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _BREAKS:
            self.words.append(" ")
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)
