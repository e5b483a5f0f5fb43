"""A web server on loopback that plays Wikidata's query service, Commons' API and its pictures.

It follows Wikimedia's documents: the formats, the limits, the errors that come with status 200. A
test says which people and files there are, and how the next requests are answered.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

if TYPE_CHECKING:
    from gallery.gallery import Gallery

WIDTHS_PX = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
AGENT = re.compile(r"Lookalike/\S+ \(\S*[@:]\S*\) httpx/\d\S*")


def kept_pictures(gallery: Gallery) -> set[str]:
    """Titles of the pictures whose bytes are in the cache."""
    from gallery.wikimedia.cache import cache_of

    with cache_of(gallery.folder) as cache:
        rows = cache._connection.execute("SELECT key FROM answer WHERE kind = 'picture'")
        return {title for (title,) in rows}


@dataclass
class Fact:
    """A person of the made-up Wikidata."""

    q_id: str
    name: str | None
    fame: int
    images: list[str]
    occupations: list[str]
    countries: list[str] = field(default_factory=list)
    gender: str | None = None
    commons: str | None = None


@dataclass
class Picture:
    """A file of the made-up Commons."""

    content: bytes
    metadata: dict[str, Any] = field(default_factory=dict)
    mime: str = "image/jpeg"


@dataclass
class Odd:
    """An answer other than the usual one."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang_up: bool = False
    cut: bool = False


MAXLAG = Odd(
    headers={"Retry-After": "1"},
    body=json.dumps(
        {"error": {"code": "maxlag", "info": "Waiting for a database: 6 s lagged", "lag": 6}}
    ).encode(),
)


@dataclass
class Wiki:
    """The servers as a test sees them.

    Attributes:
        facts: People.
        pictures: Files by title.
        renamed: Old titles, and what the files are called now.
        members: Categories' files.
        delay_s: Before every answer, or until ``release``.
        held_after: All but so many pictures wait for ``release``.
        down_after: Hang up after so many questions.
        seconds_for: How long a query for an occupation takes; over 60 it is given up.
        knows_list: Whether the API lists a category's members, or generates pages only.
        parts: So many titles are answered at once.
        counts: What LIMIT and OFFSET count: "people" as they should, "rows" or "nothing".
        labels: English names of items by id; None for a server that refuses such questions.
        odd: By what is asked ("sparql", "api", "picture"): the next answers.
        bad: By title: how that picture is answered, always.
        refusing: By what is asked: how it is answered, always.
        requests: (what, question, when) of all that was asked.
        most: By what is asked, how many questions there were at once.
    """

    facts: list[Fact] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, list[str]] | None = field(default_factory=dict)
    odd: dict[str, list[Odd]] = field(default_factory=dict)
    bad: dict[str, Odd] = field(default_factory=dict)
    refusing: dict[str, Odd] = field(default_factory=dict)
    requests: list[tuple[str, str, float]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    most: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0.0
    held_after: int | None = None
    release: threading.Event = field(default_factory=threading.Event)
    down_after: int | None = None
    seconds_for: dict[str, float] = field(default_factory=dict)
    knows_list: bool = True
    parts: int = 50
    counts: str = "people"
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    _now: dict[str, int] = field(default_factory=dict)

    def asked(self, what: str) -> list[str]:
        """The questions of one kind so far."""
        return [question for kind, question, _ in self.requests if kind == what]

    @contextmanager
    def counted(self, what: str) -> Iterator[None]:
        with self.lock:
            self._now[what] = self._now.get(what, 0) + 1
            self.most[what] = max(self.most.get(what, 0), self._now[what])
        try:
            yield
        finally:
            with self.lock:
                self._now[what] -= 1


@contextmanager
def playing(wiki: Wiki) -> Iterator[Wiki]:
    """Serves while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                _handle(self, wiki)

        def log_message(self, *_: object) -> None:
            """Keeps standard error clean."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that goes away is part of the tests."""

    with Server(("127.0.0.1", 0), Handler) as server:
        wiki.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield wiki
        finally:
            server.shutdown()
            thread.join()


def _handle(request: BaseHTTPRequestHandler, wiki: Wiki) -> None:
    parts = urlsplit(request.path)
    what = {"/sparql": "sparql", "/w/api.php": "api"}.get(parts.path, "picture")
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    with wiki.lock:
        question = unquote(parts.path) if what == "picture" else json.dumps(asked, sort_keys=True)
        wiki.requests.append((what, question, time.monotonic()))
        wiki.agents.add(request.headers.get("User-Agent", ""))
        down = wiki.down_after is not None and len(wiki.requests) > wiki.down_after
        script = wiki.odd.get(what)
        odd = script.pop(0) if script else wiki.refusing.get(what)
        bad = [answer for title, answer in wiki.bad.items() if f"/{title}/" in unquote(parts.path)]
        odd = bad[0] if bad else odd
        held = what == "picture" and wiki.held_after is not None
        held = held and len(wiki.asked(what)) > wiki.held_after
    if down or (odd is not None and odd.hang_up):
        request.close_connection = True
        request.connection.close()
        return
    with wiki.counted(what):
        wiki.release.wait(60 if held else wiki.delay_s)
        if not AGENT.fullmatch(request.headers.get("User-Agent", "")):
            odd = Odd(403, body=b"Please set a user-agent and respect our robot policy")
        if odd is None:
            answers = {"sparql": _sparql, "api": _api, "picture": _picture}
            odd = answers[what](wiki, asked if what != "picture" else {"path": parts.path})
        request.send_response(odd.status)
        length = len(odd.body) + 1000 * odd.cut
        for name, value in {"Content-Length": str(length), **odd.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(odd.body)
        request.close_connection |= odd.cut


def _json(content: Any) -> Odd:
    body = json.dumps(content).encode()
    return Odd(headers={"Content-Type": "application/json"}, body=body)


def _sparql(wiki: Wiki, asked: dict[str, str]) -> Odd:
    query = asked["query"]
    if asked.get("format") != "json":
        return Odd(400)
    if "?label" in query:
        return _labels(wiki, _values(query, "item"))
    occupations = _values(query, "occupation")
    citizenships = _values(query, "citizenship")
    (floor,) = re.findall(r"FILTER\(\?n >= (\d+)\)", query)
    (limit,) = re.findall(r"LIMIT (\d+)", query)
    (offset,) = re.findall(r"OFFSET (\d+)", query)
    if sum(wiki.seconds_for.get(q_id, 0.0) for q_id in occupations) > 60:
        return Odd(500, body=b"java.util.concurrent.TimeoutException: query took too long")
    people = [
        fact
        for fact in sorted(wiki.facts, key=lambda fact: (-fact.fame, fact.q_id))
        if set(fact.occupations) & set(occupations)
        and (not citizenships or set(fact.countries) & set(citizenships))
        and fact.images
        and fact.fame >= int(floor)
    ]
    wanted = slice(int(offset), int(offset) + int(limit))
    if wiki.counts == "people":
        people = people[wanted]
    bindings = [binding for fact in people for binding in _rows(fact, occupations)]
    if wiki.counts == "rows":
        bindings = bindings[wanted]
    return _json({"head": {"vars": ["p"]}, "results": {"bindings": bindings}})


def _labels(wiki: Wiki, q_ids: list[str]) -> Odd:
    if wiki.labels is None:
        return Odd(400, body=b"QueryBadFormed")
    bindings = [
        {
            "item": {"type": "uri", "value": f"http://www.wikidata.org/entity/{q_id}"},
            "label": {"type": "literal", "xml:lang": "en", "value": label},
        }
        for q_id in q_ids
        for label in wiki.labels.get(q_id, [])
    ]
    return _json({"head": {"vars": ["item", "label"]}, "results": {"bindings": bindings}})


def _values(query: str, variable: str) -> list[str]:
    found = re.search(rf"VALUES \?{variable} \{{([^}}]*)\}}", query)
    return re.findall(r"wd:(Q\d+)", found[1]) if found else []


def _rows(fact: Fact, occupations: list[str]) -> Iterator[dict[str, Any]]:
    entity = "http://www.wikidata.org/entity/"
    file_path = "http://commons.wikimedia.org/wiki/Special:FilePath/"
    for occupation in sorted(set(fact.occupations) & set(occupations)):
        for image in fact.images:
            for country in fact.countries or [None]:
                row: dict[str, Any] = {
                    "p": {"type": "uri", "value": entity + fact.q_id},
                    "pLabel": {"type": "literal", "value": fact.name or fact.q_id},
                    "image": {"type": "uri", "value": file_path + quote(image)},
                    "n": {"type": "literal", "value": str(fact.fame)},
                    "occupation": {"type": "uri", "value": entity + occupation},
                }
                if country is not None:
                    row["country"] = {"type": "uri", "value": entity + country}
                    row["countryLabel"] = {"type": "literal", "value": f"Land {country}"}
                if fact.gender is not None:
                    row["gender"] = {"type": "uri", "value": entity + fact.gender}
                if fact.commons is not None:
                    row["commons"] = {"type": "literal", "value": fact.commons}
                yield row


def _api(wiki: Wiki, asked: dict[str, str]) -> Odd:
    if asked.get("maxlag") != "5" or asked.get("format") != "json":
        return Odd(400)
    if asked.get("list") == "categorymembers" and not wiki.knows_list:
        return _json({"batchcomplete": True, "warnings": {}})
    if "categorymembers" in (asked.get("list"), asked.get("generator")):
        name = (asked.get("cmtitle") or asked["gcmtitle"]).removeprefix("Category:")
        if "|" in name:
            return _json({"error": {"code": "invalidcategory", "info": "Not a valid title"}})
        entries = [{"ns": 6, "title": f"File:{title}"} for title in wiki.members.get(name, [])]
        key = "categorymembers" if "list" in asked else "pages"
        return _json({"query": {key: entries}})
    titles = asked["titles"].split("|")
    assert len(titles) <= 50
    start = int(asked.get("from", "0"))
    normalized, redirects, pages = [], [], []
    for title in titles[start : start + wiki.parts]:
        name = title.removeprefix("File:")
        tidy = name[:1].upper() + name[1:].replace("_", " ")
        if tidy != name:
            normalized.append({"from": title, "to": f"File:{tidy}"})
        if tidy in wiki.renamed:
            redirects.append({"from": f"File:{tidy}", "to": f"File:{wiki.renamed[tidy]}"})
            tidy = wiki.renamed[tidy]
        pages.append(_page(wiki, tidy, int(asked["iiurlwidth"])))
    answer: dict[str, Any] = {"query": {"pages": pages}}
    if normalized:
        answer["query"]["normalized"] = normalized
    if redirects:
        answer["query"]["redirects"] = redirects
    if start + wiki.parts < len(titles):
        answer["continue"] = {"continue": "||", "from": start + wiki.parts}
    return _json(answer)


def _page(wiki: Wiki, title: str, width_px: int) -> dict[str, Any]:
    picture = wiki.pictures.get(title)
    if picture is None:
        return {"ns": 6, "title": f"File:{title}", "missing": True}
    version = {
        "size": len(picture.content),
        "mime": picture.mime,
        "user": "Uploader",
        "url": f"{wiki.url}/wikipedia/commons/{quote(title)}",
        "thumburl": f"{wiki.url}/wikipedia/commons/thumb/{quote(title)}/{width_px}px-x.jpg",
        "thumbwidth": width_px,
        "extmetadata": {
            "Artist": {"value": "A. Photographer"},
            "LicenseShortName": {"value": "CC BY-SA 4.0"},
            "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0"},
            **picture.metadata,
        },
    }
    return {"pageid": 1, "ns": 6, "title": f"File:{title}", "imageinfo": [version]}


def _picture(wiki: Wiki, asked: dict[str, str]) -> Odd:
    found = re.fullmatch(r"/wikipedia/commons/(thumb|moved)/(.+)/(\d+)px-x\.jpg", asked["path"])
    if found is None or int(found[3]) not in WIDTHS_PX:
        return Odd(429)
    title = unquote(found[2])
    if title.startswith("Moved") and found[1] == "thumb":
        return Odd(301, headers={"Location": asked["path"].replace("/thumb/", "/moved/")})
    picture = wiki.pictures.get(title)
    if picture is None or picture.metadata.get("gone"):
        return Odd(404)
    return Odd(headers={"Content-Type": "image/jpeg"}, body=picture.content)
