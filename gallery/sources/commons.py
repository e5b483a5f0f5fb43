"""Asks Wikimedia Commons for pictures: whose they are, under which licence, and where a copy is.

Source: https://www.mediawiki.org/wiki/API:Imageinfo, API:Categorymembers, API:Continue,
Manual:Maxlag_parameter; https://commons.wikimedia.org/wiki/Commons:Machine-readable_data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from engine.errors import SourceDown
from gallery.sources.courier import Again, Answer, Courier, NotThere, Patience
from gallery.sources.journal import Journal
from gallery.sources.licences import is_free, plain_text, web_address

__all__ = ["Commons", "CommonsFile"]

_TITLES: Final = 50  # in one question, for clients without special rights
_MOST_LETTERS: Final = 6_000  # of a URL; servers refuse some above 8,000
_WIDTH_PX: Final = 500  # one of those at which thumbnails are kept; others are refused
_MOST_PAGES: Final = 20  # of one answer
_FORMATS: Final = frozenset(
    ["image/jpeg", "image/png", "image/webp", "image/tiff", "image/gif", "image/x-png"]
)
_PASSING: Final = frozenset({"ratelimited", "readonly", "internal_api_error", "timeout"})
_METADATA: Final = (
    "Artist|LicenseShortName|LicenseUrl|Credit|AttributionRequired|Restrictions|UsageTerms"
)


@dataclass(frozen=True, slots=True)
class CommonsFile:
    """A picture on Commons.

    Attributes:
        title: As it is called now, without namespace.
        thumb_url: Of a copy at most 500 px wide.
        author: Plain text, or None.
        licence: Short name, or None.
        licence_url: Or None: some licences have none.
        source_url: Its page.
        problem: Why it can't be used, or None.
    """

    title: str
    thumb_url: str | None = None
    author: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    source_url: str | None = None
    problem: str | None = None


class Commons:
    """Asks the API.

    Args:
        courier: To the API.
        url: Of the API.
        journal: Remembers the answers.
        patience: As the courier's.
    """

    def __init__(self, courier: Courier, url: str, journal: Journal, patience: Patience) -> None:
        self._courier = courier
        self._url = url
        self._journal = journal
        self._lag_pause_s = patience.lag_pause_s

    def files(self, titles: Iterable[str]) -> dict[str, CommonsFile]:
        """What is known of pictures, by the titles asked for, which may be old ones.

        Raises:
            SourceDown: If the API does not answer.
        """
        wanted = list(dict.fromkeys(titles))
        known = self._journal.get_many("file", wanted)
        unknown = [title for title in wanted if title not in known]
        for chunk in _chunks(unknown):
            fresh = {title: asdict(file) for title, file in self._asked(chunk).items()}
            self._journal.put_many("file", fresh)
            known |= fresh
        return {title: CommonsFile(**known[title]) for title in wanted}

    def members(self, category: str) -> tuple[str, ...]:
        """Titles of the first 50 pictures in a category, without namespace; none if it is gone.

        Raises:
            SourceDown: If the API does not answer.
        """
        known = self._journal.get("members", category)
        if known is None:
            whose = f"Category:{category}"
            answer = self._query(
                {"list": "categorymembers", "cmtitle": whose, "cmtype": "file", "cmlimit": "50"}
            )
            entries = _listed(answer.get("categorymembers"))
            if "categorymembers" not in answer:  # a server that knows the other way to ask only
                answer = self._query(
                    {
                        "generator": "categorymembers",
                        "gcmtitle": whose,
                        "gcmtype": "file",
                        "gcmlimit": "50",
                    }
                )
                entries = _listed(answer.get("pages"))
            known = [_bare(entry["title"]) for entry in entries if "title" in entry]
            self._journal.put("members", category, known)
        return tuple(known)

    def _asked(self, titles: Sequence[str]) -> dict[str, CommonsFile]:
        pages: dict[str, dict[str, Any]] = {}
        renamed: dict[str, str] = {}
        for answer in self._answers(
            {
                "prop": "imageinfo",
                "titles": "|".join(f"File:{title}" for title in titles),
                "redirects": "1",
                "iiprop": "url|size|mime|sha1|user|extmetadata",
                "iiextmetadatafilter": _METADATA,
                "iiurlwidth": str(_WIDTH_PX),
            }
        ):
            for kind in ("normalized", "redirects"):
                for step in _listed(answer.get(kind)):
                    renamed[_bare(step["from"])] = _bare(step["to"])
            for page in _listed(answer.get("pages")):
                title = _bare(page.get("title", ""))
                pages[title] = {**pages.get(title, {}), **page}
        return {title: _file(pages, _latest(title, renamed)) for title in titles}

    def _query(self, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        """The first part of an answer."""
        return next(self._answers(parameters))

    def _answers(self, parameters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """An answer, part after part."""
        asked = {
            "action": "query",
            **parameters,
            "format": "json",
            "formatversion": "2",
            "maxlag": "5",
        }
        more: Mapping[str, str] = {}
        for _ in range(_MOST_PAGES):
            try:
                answer = self._courier.ask(self._url, self._judged, {**asked, **more})
            except NotThere as problem:
                raise SourceDown(f"there is no API at {self._url}: see gallery.commons_url") from (
                    problem
                )
            yield answer.get("query") or {}
            following = answer.get("continue")
            if not isinstance(following, Mapping) or following == more:
                return
            more = {name: str(value) for name, value in following.items()}

    def _judged(self, answer: Answer) -> Mapping[str, Any]:
        """The answer, if it is none of the errors that come with status 200."""
        try:
            content = json.loads(answer.body)
        except ValueError:
            raise Again("it sends no JSON", status=answer.status) from None
        if not isinstance(content, Mapping):
            raise Again("it sends no answer", status=answer.status)
        error = content.get("error")
        if error is None:
            return content
        code = str(error.get("code")) if isinstance(error, Mapping) else str(error)
        if code == "maxlag":
            pause_s = max(self._lag_pause_s, answer.pause_s() or 0.0)
            raise Again("its databases lag", pause_s, status=answer.status)
        if any(code.startswith(known) for known in _PASSING):
            raise Again(code, answer.pause_s(), status=answer.status)
        host = urlsplit(self._url).netloc
        raise SourceDown(f"{host} refuses ({code}): {error.get('info', 'without a reason')}")


def _chunks(titles: Iterable[str]) -> Iterator[list[str]]:
    """As many titles as one question may have, and a URL may hold."""
    chunk: list[str] = []
    length = 0
    for title in titles:
        letters = len(quote(title)) + 10
        if chunk and (len(chunk) == _TITLES or length + letters > _MOST_LETTERS):
            yield chunk
            chunk, length = [], 0
        chunk.append(title)
        length += letters
    if chunk:
        yield chunk


def _latest(title: str, renamed: Mapping[str, str]) -> str:
    seen = set()
    while title in renamed and title not in seen:
        seen.add(title)
        title = renamed[title]
    return title


def _file(pages: Mapping[str, Mapping[str, Any]], title: str) -> CommonsFile:
    page = pages.get(title) or pages.get(title[:1].upper() + title[1:])
    if page is None:
        return CommonsFile(title, problem="the picture is not on Commons")
    source_url = f"https://commons.wikimedia.org/wiki/File:{quote(title.replace(' ', '_'))}"
    versions = _listed(page.get("imageinfo"))
    if not versions:
        gone = page.get("missing") or "missing" in page
        problem = "the picture was deleted" if gone else "the picture is not on Commons"
        return CommonsFile(title, source_url=source_url, problem=problem)
    version = versions[0]
    metadata = version.get("extmetadata") or {}
    licence = _text(metadata, "LicenseShortName") or _text(metadata, "UsageTerms")
    thumb_url = web_address(str(version.get("thumburl") or ""), 4000)
    author = _text(metadata, "Artist") or _text(metadata, "Credit") or str(version.get("user", ""))
    return CommonsFile(
        title=title,
        thumb_url=thumb_url,
        author=author or None,
        licence=licence[:200] or None,
        licence_url=web_address(_text(metadata, "LicenseUrl")),
        source_url=web_address(str(version.get("descriptionurl") or ""), 2000) or source_url,
        problem=_problem(licence, version.get("mime"), thumb_url),
    )


def _problem(licence: str, mime: object, thumb_url: str | None) -> str | None:
    if not licence:
        return "no free picture (no licence is given)"
    if not is_free(licence):
        return f"no free picture ({licence[:60]})"
    if mime is not None and mime not in _FORMATS:
        return f"no photo ({mime})"
    return None if thumb_url else "there is no small copy of the picture"


def _text(metadata: Mapping[str, Any], name: str) -> str:
    """A value of the metadata: HTML, or a number, or missing."""
    entry = metadata.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return "" if value is None else plain_text(str(value))


def _listed(entries: Any) -> list[Mapping[str, Any]]:
    """Entries of a list, or of what older formats have in its place."""
    if isinstance(entries, Mapping):
        entries = entries.values()
    return [entry for entry in entries or () if isinstance(entry, Mapping)]


def _bare(title: str) -> str:
    """A title without namespace and underscores."""
    namespace, colon, rest = title.partition(":")
    name = rest if colon and namespace.casefold() in ("file", "image") else title
    return " ".join(name.replace("_", " ").split())
