"""Who made the gallery's pictures, under which licence, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.records import Portrait

__all__ = ["Credit", "credits_of", "web_page"]

_UNKNOWN = "author unknown"
_NO_LICENCE = "no licence known"

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Picture credits</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem }}
body {{ padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left; \
overflow-wrap: anywhere; vertical-align: top }}
:root {{ color-scheme: light dark }}
</style>
<h1>Picture credits</h1>
<p>{count} pictures. Licences cover the photographs; who is shown keeps rights of their own.</p>
<table>
<thead><tr><th>Person</th><th>Author</th><th>Licence</th><th>Source</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</html>
"""


@dataclass(frozen=True, slots=True)
class Credit:
    """A picture.

    Attributes:
        person: Whom it shows.
        author: Plain text, or None.
        licence: Short name, or None.
        licence_url: Or None.
        source_url: Or None.
    """

    person: str
    author: str | None
    licence: str | None
    licence_url: str | None
    source_url: str | None

    def line(self) -> str:
        """As printed: ``Grace Hopper: James S. Davis, public domain, https://...``."""
        return f"{self.person}: " + ", ".join(
            filter(
                None,
                (
                    self.author or _UNKNOWN,
                    self.licence or _NO_LICENCE,
                    self.licence_url,
                    self.source_url,
                ),
            )
        )

    def to_json(self) -> dict[str, str | None]:
        """As printed with ``--json``."""
        return {
            "person": self.person,
            "author": self.author,
            "license": self.licence,
            "license_url": self.licence_url,
            "source": self.source_url,
        }

    def row(self) -> str:
        """As a row of the web page."""
        licence = _linked(self.licence or _NO_LICENCE, self.licence_url)
        source = _linked(self.source_url or "", self.source_url)
        cells = (escape(self.person), escape(self.author or _UNKNOWN), licence, source)
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def credits_of(gallery: Gallery) -> tuple[Credit, ...]:
    """Every picture, by person."""
    portraits = gallery.catalogue.portraits_by_id(gallery.catalogue.portrait_ids().tolist())
    whose: dict[int, list[Portrait]] = {}
    for _, portrait in sorted(portraits.items()):
        whose.setdefault(portrait.person_id, []).append(portrait)
    return tuple(
        Credit(person.name, one.author, one.licence, one.licence_url, one.source_url)
        for person in gallery.people()
        for one in whose.get(person.id, ())
    )


def web_page(rows: Sequence[Credit]) -> str:
    """A page that needs nothing else; what sources say is shown as text, never as markup."""
    return _PAGE.format(count=f"{len(rows):,}", rows="\n".join(row.row() for row in rows))


def _linked(text: str, url: str | None) -> str:
    if url is None or not url.startswith(("https://", "http://")):
        return escape(text)
    return f'<a href="{escape(url)}" rel="noopener nofollow">{escape(text)}</a>'
