"""People from Wikidata with their portraits from Wikimedia Commons, politely and resumably.

Everything asked is noted in a journal, every picture fetched is kept until it is in the gallery:
stopped at any moment, it goes on from there and asks for nothing again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit, urlunsplit

from engine.errors import BadSettings, Busy
from gallery.progress import Progress, no_progress
from gallery.records import FoundPortrait
from gallery.screen import SCREENING
from gallery.sources.categories import Category, misfits
from gallery.sources.celebrities import Celebrity, merged
from gallery.sources.commons import Commons, CommonsFile
from gallery.sources.courier import Courier, Patience, user_agent
from gallery.sources.journal import Journal
from gallery.sources.picker import Picker, PictureReader, Plan
from gallery.sources.same_face import FaceCheck
from gallery.sources.spool import Spool
from gallery.sources.wikidata import Row, Wikidata

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Engine
    from gallery.gallery import Gallery

__all__ = ["Servers", "Wikimedia", "journal_in"]

_API_CONNECTIONS: Final = 3  # to the API, and
_PICTURE_CONNECTIONS: Final = 2  # to upload.wikimedia.org: Wikimedia's rules for robots
_QUERY_S: Final = 75.0  # the query service gives up after 60
_FAMOUS: Final = (60, 20)  # wikis with an article; tens of thousands of people have 60
_CHUNK_PEOPLE: Final = 50
_AHEAD: Final = 16  # people being worked on
_TRIED: Final = 4  # pictures of a person's category that are tried for each that is wanted
_SETTLE_AT: Final = 256

_TELLING_NOTHING: Final = ("signature", "autograph", "grave", "tomb", "statue", "star on", "plaque")


@dataclass(frozen=True, slots=True)
class Servers:
    """Whom to ask, and as whom.

    Attributes:
        contact: E-mail address or web page of whoever runs this.
        wikidata_url: Of the query service.
        commons_url: Of the API.
    """

    contact: str
    wikidata_url: str = "https://query.wikidata.org/sparql"
    commons_url: str = "https://commons.wikimedia.org/w/api.php"


def journal_in(gallery: Gallery) -> Journal:
    """The journal of what was asked for a gallery."""
    folder = _folder(gallery)
    return Journal(folder / "journal.db", lasting=frozenset({"picture", "verdict", "note"}))


class Wikimedia:
    """Asks and fetches; a context, within which nobody else does so for this gallery.

    Args:
        gallery: What it has is not fetched.
        engine: Compares faces.
        servers: Whom to ask.
        backbone: Compares them with it.
        patience: How long to wait.
        stop: Ends every wait when it is set, which the end of the context does.

    Raises:
        BadSettings: If contact or addresses can't be used.
        Busy: If another process is downloading.
    """

    def __init__(
        self,
        gallery: Gallery,
        engine: Engine,
        servers: Servers,
        *,
        backbone: str,
        patience: Patience | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._gallery = gallery
        check = FaceCheck(engine, backbone)
        self._stop = stop or threading.Event()
        self._offered: deque[tuple[str, str]] = deque()
        patience = patience or Patience()
        agent = user_agent(servers.contact)
        with ExitStack() as stack:
            self._alone(stack)
            self.journal = stack.enter_context(journal_in(gallery))

            def courier(connections: int, waits: Patience) -> Courier:
                made = Courier(agent, connections=connections, patience=waits, stop=self._stop)
                return stack.enter_context(made)

            patient = replace(patience, answer_s=_QUERY_S, tries_when_slow=1)
            url = _address(servers.wikidata_url, "sparql", "gallery.wikidata_url")
            self._wikidata = Wikidata(courier(1, patient), url, self.journal, self._stop)
            hasty = replace(patient, tries=1, tries_at_first=1, tries_to_connect=1, answer_s=20.0)
            self._hasty = courier(1, hasty)
            url = _address(servers.commons_url, "w/api.php", "gallery.commons_url")
            self._commons = Commons(
                courier(_API_CONNECTIONS, patience), url, self.journal, patience
            )
            self._spool = Spool(
                _folder(gallery) / "pictures",
                courier(_PICTURE_CONNECTIONS, patience),
                self.journal,
                connections=_PICTURE_CONNECTIONS,
            )
            stack.callback(self._spool.close)
            self.picker = Picker(gallery, self.journal, self._spool, check)
            self._askers, self._planner, self._preparers = (
                self._pool(stack, threads) for threads in (_API_CONNECTIONS, 1, 4)
            )
            stack.callback(self._stop.set)  # first of all, so that nobody waits for a pause
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def survey(
        self,
        categories: Sequence[Category],
        *,
        people: int,
        min_fame: int,
        credited: Sequence[Category] = (),
        progress: Progress = no_progress,
    ) -> tuple[Celebrity, ...]:
        """Everybody found in the categories, the most famous first.

        Args:
            categories: At least one.
            people: So many of each are enough.
            min_fame: Nobody with articles in fewer wikis.
            credited: Further categories that people may belong to.
            progress: Told about every category.

        Raises:
            SourceDown: If Wikidata does not answer.
        """
        rows = {}
        for done, category in enumerate(categories):
            progress("lists", done, len(categories))
            rows[category.name] = self._rows(category, people, min_fame)
        progress("lists", len(categories), len(categories))
        return merged(rows, tuple(dict.fromkeys((*categories, *credited))))

    def misfits(self, categories: Sequence[Category]) -> tuple[str, ...]:
        """Sentences on ids of the table that do not mean what the table says."""
        q_ids = {q_id for category in categories for q_id, _ in category.names}
        return misfits(categories, self._wikidata.labels(sorted(q_ids), self._hasty))

    def _rows(self, category: Category, people: int, min_fame: int) -> list[Row]:
        """Rows about enough people: the famous are asked for first, which is a small question."""
        found: list[Row] = []
        for floor in (*(fame for fame in _FAMOUS if fame > min_fame), min_fame):
            rows = self._wikidata.rows(
                category.occupations, category.countries, min_fame=floor, people=people
            )
            found += (row for row in rows if row.fame >= floor)
            if len({row.q_id for row in found}) >= people:
                break
        return found

    def portraits(
        self,
        people: Sequence[Celebrity],
        each: int,
        progress: Progress = no_progress,
    ) -> Generator[FoundPortrait, None, None]:
        """Pictures that the gallery lacks, person by person.

        Args:
            people: Who.
            each: How many of one person, with those in the gallery.
            progress: Told about everybody.

        Raises:
            SourceDown: If Commons does not answer.
        """
        waiting: deque[Future[list[FoundPortrait]]] = deque()
        done = 0
        for plans in self._planned(people, each):
            for plan in plans:
                waiting.append(self._preparers.submit(self.picker.pick, plan, each))
                while len(waiting) > _AHEAD:
                    yield from self._offer(waiting.popleft().result())
                    done += 1
                    progress("people", done, len(people))
        for future in waiting:
            yield from self._offer(future.result())
            done += 1
            progress("people", done, len(people))

    def settle(self, *, everything: bool) -> None:
        """Deletes fetched pictures that are in the gallery.

        Args:
            everything: All of them, because the gallery has decided about all.
        """
        if everything:
            self._offered.clear()
            self._spool.sweep()
            return
        for _ in range(len(self._offered)):
            title, sha256 = self._offered.popleft()
            if self._gallery.catalogue.known(sha256, SCREENING) is None:
                self._offered.append((title, sha256))
            else:
                self._spool.drop(title)

    def _alone(self, stack: ExitStack) -> None:
        import filelock

        lock = filelock.FileLock(_folder(self._gallery) / "download.lock", timeout=0)
        try:
            stack.enter_context(lock)
        except filelock.Timeout as problem:
            raise Busy(
                "another `lookalike gallery download` is at work on this gallery: wait until it "
                "is done"
            ) from problem

    def _pool(self, stack: ExitStack, threads: int) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="wikimedia")
        stack.callback(pool.shutdown, cancel_futures=True)
        return pool

    def _planned(self, people: Sequence[Celebrity], each: int) -> Iterator[list[Plan]]:
        """What to try, some people at a time; the next ones are asked about meanwhile."""
        chunks = [
            people[start : start + _CHUNK_PEOPLE] for start in range(0, len(people), _CHUNK_PEOPLE)
        ]
        coming: Future[list[Plan]] | None = None
        for chunk in chunks:
            before, coming = coming, self._planner.submit(self._plan, chunk, each)
            if before is not None:
                yield before.result()
        if coming is not None:
            yield coming.result()

    def _plan(self, people: Sequence[Celebrity], each: int) -> list[Plan]:
        """What to try of everybody; categories that will be needed are asked for together."""
        own = self._commons.files(
            title for one in people for title in one.images if one.name is not None
        )
        usable = {
            one.q_id: sum(title in own and own[title].problem is None for title in one.images)
            for one in people
        }
        needy = [one for one in people if one.name is not None and usable[one.q_id] < each]
        more = dict(
            zip((one.q_id for one in needy), self._wanted(needy, usable, each), strict=True)
        )
        self._commons.files(title for titles in more.values() for title in titles)
        return [
            Plan(
                one,
                tuple(own[title] for title in one.images if title in own),
                partial(self._others, one, each, more.get(one.q_id)),
            )
            for one in people
        ]

    def _wanted(
        self, people: Sequence[Celebrity], usable: Mapping[str, int], each: int
    ) -> Iterator[list[str]]:
        def titles(one: Celebrity) -> list[str]:
            members = () if one.commons is None else self._commons.members(one.commons)
            return _worth_trying(members, one, each - usable[one.q_id])

        return self._askers.map(titles, people)

    def _others(
        self, celebrity: Celebrity, each: int, titles: Sequence[str] | None
    ) -> list[CommonsFile]:
        """Pictures of a person's category; asked for now where nobody thought they were needed."""
        if celebrity.name is None or celebrity.commons is None:
            return []
        if titles is None:
            titles = _worth_trying(self._commons.members(celebrity.commons), celebrity, each)
        return list(self._commons.files(titles).values())

    def _offer(self, portraits: Iterable[FoundPortrait]) -> Iterator[FoundPortrait]:
        for portrait in portraits:
            assert isinstance(portrait.read, PictureReader)
            self._offered.append((portrait.read.title, portrait.read.picture.sha256))
            yield portrait
        if len(self._offered) >= _SETTLE_AT:
            self.settle(everything=False)


def _worth_trying(titles: Sequence[str], celebrity: Celebrity, wanted: int) -> list[str]:
    """Pictures of a person's category that may be portraits, those that carry the name first."""
    photos = [
        title
        for title in titles
        if title not in celebrity.images
        and title.casefold().endswith((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"))
        and not any(word in title.casefold() for word in _TELLING_NOTHING)
    ]
    name = (celebrity.name or "").casefold()
    photos.sort(key=lambda title: name not in title.casefold())
    return photos[: _TRIED * wanted]


def _folder(gallery: Gallery) -> Path:
    folder = gallery.folder / "wikimedia"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(f"{folder} can't be made ({problem.strerror})") from problem
    return folder


def _address(url: str, usual_path: str, setting: str) -> str:
    """The address of a service; a bare host gets the path that such services have."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings(f"{setting} should be a web address, not {url!r}")
    if parts.path.strip("/"):
        return url
    return urlunsplit(parts._replace(path=f"/{usual_path}"))
