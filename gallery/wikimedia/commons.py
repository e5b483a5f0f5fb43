"""Asks Wikimedia Commons for pictures: who made them, under which licence, and a small copy.

Source: https://www.mediawiki.org/wiki/API:Imageinfo, API:Categorymembers, API:Continue,
Manual:Maxlag_parameter; https://commons.wikimedia.org/wiki/Commons:Machine-readable_data.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from itertools import accumulate
from typing import Any, Final
from urllib.parse import quote, urlsplit

from engine.errors import SourceDown
from engine.http import Failing, HttpClient, NotThere, Refused, Retry
from gallery.records import Credit
from gallery.wikimedia import CONTACT_ADVICE, refusals
from gallery.wikimedia.cache import Cache

_TITLES: Final = 50  # in one question, for clients without special rights
_MOST_LETTERS: Final = 6_000  # of a URL; servers refuse some above 8,000
_WIDTH_PX: Final = 500  # one of those at which thumbnails are kept; others are refused
_MOST_PAGES: Final = 20  # of one answer
_WAYS: Final = (("list", "cm", "categorymembers"), ("generator", "gcm", "pages"))
_FORMATS: Final = tuple(f"image/{one}" for one in ("jpeg", "png", "webp", "tiff", "gif", "x-png"))
_PASSING: Final = frozenset({"ratelimited", "readonly", "internal_api_error", "timeout"})
_METADATA: Final = "Artist|LicenseShortName|LicenseUrl|Credit|UsageTerms"

# Pictures in a row that can't be had before the server is to blame, and not they:
_FAILED: Final = 3  # it fails
_REFUSED_AT_FIRST: Final = 5  # it refuses, and has delivered none in this run
_REFUSED_LATER: Final = 20  # it refuses, after it has delivered some

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


@dataclass(frozen=True, slots=True)
class CommonsFile(Credit):
    """A picture on Commons, and what is said of it."""

    title: str  # as it is called now, without namespace
    thumb_url: str | None = None  # of a copy at most 500 px wide
    problem: str | None = None  # why it can't be used


class Commons:
    """Asks the API at ``url``, and fetches pictures, each once; safe to use from several threads.

    ``pictures`` is the client to the server that has them.
    """

    def __init__(self, client: HttpClient, url: str, pictures: HttpClient, cache: Cache) -> None:
        self._client, self._url, self._pictures, self._cache = client, url, pictures, cache
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}  # so that two people's picture comes once
        self._failed: dict[str, str] = {}  # pictures to ask for again in the next run
        self._refused: dict[str, str] = {}  # in a row
        self._failures = 0  # in a row
        self._delivers = False
        self._down: SourceDown | None = None

    def files(self, titles: Iterable[str]) -> dict[str, CommonsFile]:
        """What is known of pictures, by the titles asked for, which may be old ones."""
        wanted = list(dict.fromkeys(titles))
        known = self._cache.get_many("file", wanted)
        unknown = [title for title in wanted if title not in known]
        while unknown:
            letters = accumulate(len(quote(title)) + 10 for title in unknown[:_TITLES])
            count = max(1, sum(total <= _MOST_LETTERS for total in letters))
            chunk, unknown = unknown[:count], unknown[count:]
            fresh = {title: asdict(file) for title, file in self._asked(chunk).items()}
            self._cache.put_many("file", fresh)
            known |= fresh
        return {title: CommonsFile(**known[title]) for title in wanted}

    def members(self, category: str) -> tuple[str, ...]:
        """Titles of the first 50 pictures in a category, without namespace; none if it is gone."""
        known = self._cache.get("members", category)
        if known is None:
            # Some servers know only the second way to ask.
            for way, prefix, key in _WAYS:
                asked = {way: "categorymembers", f"{prefix}title": f"Category:{category}"}
                asked |= {f"{prefix}type": "file", f"{prefix}limit": "50"}
                answer = next(self._answers(asked))
                if key in answer:
                    break
            entries = _listed(answer.get(key))
            known = [_bare(entry["title"]) for entry in entries if "title" in entry]
            self._cache.put("members", category, known)
        return tuple(known)

    def fetch(self, file: CommonsFile) -> bytes | str:
        """A picture, which is in the cache as well from now on; or why it can't be had.

        Raises SourceDown if the server does not answer, or refuses every picture.
        """
        with self._turns.setdefault(file.title, threading.Lock()):
            found: bytes | str | None = self.missing(file.title)
            found = found or self._cache.get("picture", file.title)
            if found is not None:
                return found
            if self._down is not None:
                raise self._down
            try:
                found = self._pictures.get(str(file.thumb_url), lambda body, _pause_s: body)
                self._cache.put("sha256", file.title, hashlib.sha256(found).hexdigest())
                self._cache.put("picture", file.title, found)
            except NotThere:
                found = "the picture was deleted"
            except (Refused, Failing) as problem:
                return self._not_delivered(file, problem)
            with self._lock:  # the server is well: what it refused need not be asked for again
                missing, self._refused, self._failures = self._refused, {}, 0
                self._delivers = True
            if isinstance(found, str):
                missing[file.title] = found
            self._cache.put_many("missing", missing)
            return found

    def missing(self, title: str) -> str | None:
        """Why a picture could not be had when it was fetched; None if it could, or never was."""
        return self._failed.get(title) or self._cache.get("missing", title)

    def _not_delivered(self, file: CommonsFile, problem: Refused | Failing) -> str:
        """Why one picture can't be had, unless the server is to blame.

        A picture that is refused need not be asked for again, once others are delivered; one at
        which the server fails is asked for again in the next run.
        """
        why = problem.details["reason"] if isinstance(problem, Failing) else problem.reason
        reason = f"the picture can't be fetched ({why})"
        refused = not isinstance(problem, Failing) or problem.details["status"] == 429
        with self._lock:
            self._failed[file.title] = reason
            if refused:
                self._refused[file.title] = reason
            else:
                self._failures += 1
            failures, count, delivers = self._failures, len(self._refused), self._delivers
        if failures >= _FAILED and isinstance(problem, Failing):
            self._down = problem
        if count >= (_REFUSED_LATER if delivers else _REFUSED_AT_FIRST):
            host = urlsplit(file.thumb_url or "").netloc
            self._down = SourceDown(f"{host} refuses every picture ({why}): {CONTACT_ADVICE}")
        if self._down is not None:
            raise self._down
        if refused and delivers and count < _REFUSED_AT_FIRST:
            self._cache.put("missing", file.title, reason)
        return reason

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
        now = {title: title for title in titles}
        for _ in renamed:  # so many steps at most, also where they lead in a circle
            now = {title: renamed.get(name, name) for title, name in now.items()}
        return {title: _file(pages, name) for title, name in now.items()}

    def _answers(self, parameters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """An answer, part after part."""
        asked = {"action": "query", "format": "json", "formatversion": "2", "maxlag": "5"}
        more: Mapping[str, str] = {}
        for _ in range(_MOST_PAGES):
            with refusals(self._url, "gallery.commons_url"):
                answer = self._client.get(self._url, self._judged, {**asked, **parameters, **more})
            yield answer.get("query") or {}
            following = answer.get("continue")
            if not isinstance(following, Mapping) or following == more:
                return
            more = {name: str(value) for name, value in following.items()}

    def _judged(self, body: bytes, pause_s: float | None) -> Mapping[str, Any]:
        """The answer, if it is none of the errors that come with status 200."""
        content: Any = None
        with contextlib.suppress(ValueError):
            content = json.loads(body)
        if not isinstance(content, Mapping):
            raise Retry("it sends no JSON answer", status=200)
        error = content.get("error")
        if error is None:
            return content
        error = error if isinstance(error, Mapping) else {"code": error}
        code = str(error.get("code"))
        if code == "maxlag":
            lag_pause_s = max(self._client.patience.lag_pause_s, pause_s or 0.0)
            raise Retry("its databases lag", lag_pause_s, status=200)
        if code.startswith("invalid"):  # there is nothing of that title
            return {}
        if any(code.startswith(known) for known in _PASSING):
            raise Retry(code, pause_s, status=200)
        host = urlsplit(self._url).netloc
        raise SourceDown(f"{host} refuses ({code}): {error.get('info', 'without a reason')}")


def _file(pages: Mapping[str, Mapping[str, Any]], title: str) -> CommonsFile:
    page = pages.get(title) or pages.get(title[:1].upper() + title[1:])
    if page is None:
        return CommonsFile(title, problem="the picture is not on Commons")
    source_url = f"https://commons.wikimedia.org/wiki/File:{quote(title.replace(' ', '_'))}"
    versions = _listed(page.get("imageinfo"))
    if not versions:
        fate = "was deleted" if "missing" in page else "is not on Commons"
        return CommonsFile(title, source_url=source_url, problem=f"the picture {fate}")
    version = versions[0]
    metadata = version.get("extmetadata") or {}
    licence = _text(metadata, "LicenseShortName") or _text(metadata, "UsageTerms")
    thumb_url = web_address(str(version.get("thumburl") or ""), 4000)
    mime = version.get("mime") or "image/jpeg"
    problem: str | None = None
    if not is_free(licence):
        problem = f"no free picture ({licence[:60] or 'no licence is given'})"
    elif mime not in _FORMATS:
        problem = f"no photo ({mime})"
    elif thumb_url is None:
        problem = "there is no small copy of the picture"
    author = _text(metadata, "Artist") or _text(metadata, "Credit") or str(version.get("user", ""))
    return CommonsFile(
        title=title,
        thumb_url=thumb_url,
        author=author or None,
        licence=licence[:200] or None,
        licence_url=web_address(_text(metadata, "LicenseUrl")),
        source_url=web_address(str(version.get("descriptionurl") or ""), 2000) or source_url,
        problem=problem,
    )


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
