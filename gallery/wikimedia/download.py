"""Downloads people from Wikidata and Wikimedia Commons into a gallery.

Stopped at any moment, it goes on from there and asks for nothing again: answers and pictures are
in the cache, pictures until the gallery has decided about them.
"""

import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import call
from typing import Any, Final, NamedTuple

from engine.engine import Engine
from engine.errors import Busy
from engine.http import HttpClient, Patience, Stopped
from gallery.add import add, in_order
from gallery.gallery import Gallery
from gallery.progress import Progress, Report, in_batches, no_progress
from gallery.records import REMOVED, FoundPortrait, knows_more
from gallery.screen import SCREENING
from gallery.wikimedia import Servers, service_url, user_agent
from gallery.wikimedia.cache import cache_of, folder_of
from gallery.wikimedia.categories import Category, Celebrity, merged, misfits, most_famous
from gallery.wikimedia.choose import Chooser
from gallery.wikimedia.commons import Commons, CommonsFile
from gallery.wikimedia.wikidata import Wikidata

_API_CONNECTIONS: Final = 3  # to the API, and
_PICTURE_CONNECTIONS: Final = 2  # to upload.wikimedia.org: Wikimedia's rules for robots
_CHUNK_PEOPLE: Final = 50  # asked about together
_AHEAD: Final = 16  # people being worked on
_TRIED: Final = 4  # pictures of a person's category that are tried for each that is wanted
_OFFERED: Final = 256  # pictures, before those that are in the gallery are dropped
_MORE_OF: Final = 4  # who can't be had is replaced from one part in so many more people,
_MORE: Final = 20  # and these
_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
_TELLING_NOTHING: Final = ("signature", "autograph", "grave", "tomb", "statue", "star on", "plaque")


@dataclass(frozen=True, slots=True)
class Order:
    """Who is wanted."""

    categories: tuple[Category, ...]  # at least one
    limit: int  # so many people, the most famous who can be had
    min_fame: int = 0  # nobody with articles in fewer wikis
    portraits: int = 3  # at most so many of each person
    fairly: bool = False  # every category in turn gives its most famous, not the most famous of all
    credited: tuple[Category, ...] = ()  # nobody is looked for there, but people may belong


class LeftOut(NamedTuple):
    """Somebody without a portrait, and why."""

    person: str
    wikidata_id: str
    reason: str


@dataclass(slots=True)
class DownloadReport(Report):
    """What a download did, and what became of the pictures."""

    wanted: int = 0  # how many people there should be
    there: int = 0  # how many of them are in the gallery now
    left_out: list[LeftOut] = field(default_factory=list)  # of those who were reached
    warnings: tuple[str, ...] = ()  # what may be wrong with the table of categories

    def why_left_out(self) -> Counter[str]:
        """People left out, by reason."""
        return Counter(one.reason.partition(" (")[0] for one in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        record, reasons = Report.to_json(self), dict(self.why_left_out().most_common())
        counts = {"people": record.pop("wanted"), "in_gallery": record.pop("there")}
        left_out = [one._asdict() for one in self.left_out]
        return counts | record | {"left_out": left_out, "left_out_by_reason": reasons}


class Download(AbstractContextManager["Download"]):
    """Adds the people of an order; a context, within which nobody else downloads for the gallery.

    Of the backbones, at least one, dlib or the first compares faces. Lists, people and vectors are
    told to ``progress``. ``stop`` ends the work, pauses included, when somebody sets it; it is set
    afterwards. Raises BadSettings if contact or addresses can't be used, Busy if another process
    downloads.
    """

    def __init__(
        self,
        gallery: Gallery,
        engine: Engine,
        order: Order,
        servers: Servers,
        backbones: Sequence[str],
        *,
        progress: Progress = no_progress,
        patience: Patience | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        import filelock

        self._gallery, self._engine, self._order = gallery, engine, order
        self._backbones, self._progress = backbones, progress
        self._done = DownloadReport()
        self._offered: list[str] = []  # titles of pictures the gallery has to decide about
        stop = stop or threading.Event()
        query_service = service_url(servers.wikidata_url, "/sparql", "gallery.wikidata_url")
        api = service_url(servers.commons_url, "/w/api.php", "gallery.commons_url")
        agent = user_agent(servers.contact)
        with ExitStack() as stack:
            client = partial(HttpClient, agent, patience=patience, stop=stop)
            enter = stack.enter_context

            def pool(threads: int) -> ThreadPoolExecutor:
                made = ThreadPoolExecutor(threads, thread_name_prefix="wikimedia")
                stack.callback(made.shutdown, cancel_futures=True)
                return made

            try:
                lock = filelock.FileLock(folder_of(gallery.folder) / "download.lock", timeout=0)
                enter(lock)
            except filelock.Timeout as problem:
                message = "another `lookalike gallery download` is at work on this gallery"
                raise Busy(f"{message}: wait until it is done") from problem
            self._cache = enter(cache_of(gallery.folder))
            self._wikidata = Wikidata(enter(client(connections=1)), query_service, self._cache)
            to_api = enter(client(connections=_API_CONNECTIONS))
            to_pictures = enter(client(connections=_PICTURE_CONNECTIONS))
            self._commons = Commons(to_api, api, to_pictures, self._cache)
            judge = "dlib" if "dlib" in backbones else backbones[0]
            self._chooser = Chooser(gallery, engine, judge, self._cache, self._commons)
            self._askers, self._planner, self._choosers = pool(_API_CONNECTIONS), pool(1), pool(4)
            stack.callback(stop.set)  # first of all, so that nobody waits for a pause
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def survey(self, people: int) -> tuple[Celebrity, ...]:
        """Everybody found, the most famous first; so many people of each category are enough."""
        order, rows = self._order, {}
        for done, category in enumerate(order.categories):
            self._progress("lists", done, len(order.categories))
            rows[category.name] = self._wikidata.most_famous(
                category.occupations, category.countries, min_fame=order.min_fame, people=people
            )
        self._progress("lists", len(order.categories), len(order.categories))
        return merged(rows, tuple(dict.fromkeys((*order.categories, *order.credited))))

    def run(
        self, *, warn: Callable[[str], None] = lambda _: None, refresh: bool = False
    ) -> DownloadReport:
        """Takes people in by fame; for those who can't be had the next ones, within reason.

        ``warn`` is told at once what may be wrong with the table of categories; ``refresh`` asks
        again what was answered in the last 30 days. Raises SourceDown if a server does not answer
        (what was done is kept), Busy if another process is changing the gallery.
        """
        if refresh:
            self._cache.forget("people", "members", "file", "missing", "refusal", "labels")
        try:
            self._run(warn)
        except Stopped:
            self._done.interrupted = True
        return self._done

    def _run(self, warn: Callable[[str], None]) -> None:
        order, done = self._order, self._done
        away = self._gallery.banned()
        most = order.limit + order.limit // _MORE_OF + _MORE
        found = self.survey(most + len(away.keys))
        q_ids = {q_id for category in order.categories for q_id, _ in category.names}
        done.warnings = misfits(order.categories, self._wikidata.labels(q_ids))
        for warning in done.warnings:
            warn(warning)
        welcome = [one for one in found if self._chooser.person(one) not in away]
        done.wanted = min(order.limit, len(welcome))
        seen: set[str] = set()
        while len(seen) < most and done.there < order.limit and not done.interrupted:
            count = min(most, len(seen) + order.limit - done.there)
            famous = most_famous(welcome, count, fairly=order.fairly)
            people = [one for one in famous if one.q_id not in seen]
            if not people:
                break
            seen.update(one.q_id for one in people)
            self._take_in(people)
        done.left_out += [
            LeftOut(one.name or one.q_id, one.q_id, REMOVED)
            for one in found[: order.limit]
            if self._chooser.person(one) in away
        ]

    def _take_in(self, people: Sequence[Celebrity]) -> None:
        self._complete(people)
        before = self._done.there

        def people_only(what: str, done: int, total: int | None) -> None:
            if what == "people":  # not their photos; and those who come after others go on counting
                self._progress(what, before + done, None if total is None else before + total)
            elif what != "photos":
                self._progress(what, done, total)

        interrupted, portraits = True, self._portraits(people, people_only)
        how: dict[str, Any] = {"backbones": self._backbones, "progress": people_only}
        try:
            add(self._gallery, self._engine, portraits, report=self._done, **how)
            interrupted = self._done.interrupted
        finally:
            portraits.close()
            self._drop_pictures(decided=not interrupted)
        self._account(people)

    def _complete(self, people: Sequence[Celebrity]) -> None:
        """Notes what is new about people who are in the gallery: categories, fame."""
        there = {person.key: person for person in self._gallery.people()}
        news = [
            person
            for person in map(self._chooser.person, people)
            if person.key in there and knows_more(person, there[person.key])
        ]
        if news:
            with self._gallery.writing(), self._gallery.transaction() as changes:
                for person in news:
                    changes.add_person(person)
            self._gallery.refresh()

    def _account(self, people: Sequence[Celebrity]) -> None:
        """Counts who is in the gallery now, and says of the others why not."""
        there = {person.key for person in self._gallery.people()}
        for celebrity in people:
            person = self._chooser.person(celebrity)
            if person.key in there:
                self._done.there += 1
                continue
            reason = self._chooser.why_left_out(celebrity)
            if reason is None and not self._done.interrupted:
                reason = "no picture could be fetched"
            if reason is not None:
                self._done.left_out.append(LeftOut(person.name, celebrity.q_id, reason))

    def _portraits(
        self, people: Sequence[Celebrity], progress: Progress
    ) -> Generator[FoundPortrait, None, None]:
        """Pictures that the gallery lacks, person by person; the next people are asked about."""
        chunks = in_batches(people, _CHUNK_PEOPLE)
        plans = chain.from_iterable(in_order(self._planner, self._planned, chunks, 1))
        for done, found in enumerate(in_order(self._choosers, call, plans, _AHEAD), 1):
            self._offered.extend(portrait.origin.removeprefix("File:") for portrait in found)
            yield from found
            if len(self._offered) >= _OFFERED:
                self._drop_pictures(decided=False)
            progress("people", done, len(people))

    def _drop_pictures(self, *, decided: bool) -> None:
        """Deletes all fetched pictures, or if not all are decided those that the gallery knows."""
        if decided:
            self._offered.clear()
            self._cache.forget("picture")
            return
        known = self._gallery.known
        sha256 = self._cache.get_many("sha256", self._offered)
        done = {title for title in self._offered if known(sha256.get(title, ""), SCREENING)}
        self._offered = [title for title in self._offered if title not in done]
        self._cache.drop_pictures(done)

    def _planned(self, people: Sequence[Celebrity]) -> list[Callable[[], list[FoundPortrait]]]:
        """How everybody's are chosen; categories that will be needed are asked for together."""
        each = self._order.portraits
        own = self._commons.files(title for one in people if one.name for title in one.images)
        mine = {one: [own[title] for title in one.images if title in own] for one in people}
        lacking = {one: each - sum(file.problem is None for file in mine[one]) for one in people}
        needy = [one for one in people if lacking[one] > 0]
        titles = self._askers.map(lambda one: self._others(one, lacking[one]), needy)
        more = dict(zip(needy, titles, strict=True))
        self._commons.files(title for titles in more.values() for title in titles)

        def others(one: Celebrity) -> list[CommonsFile]:
            titles = more[one] if one in more else self._others(one, each)
            return list(self._commons.files(titles).values())

        choose = self._chooser.choose
        return [partial(choose, one, mine[one], partial(others, one), each) for one in people]

    def _others(self, person: Celebrity, wanted: int) -> list[str]:
        """Pictures of a person's category that may be portraits; first those with the name."""
        if person.name is None or person.commons is None:
            return []
        photos = [
            title
            for title in self._commons.members(person.commons)
            if title not in person.images
            and title.casefold().endswith(_ENDINGS)
            and not any(word in title.casefold() for word in _TELLING_NOTHING)
        ]
        name = person.name.casefold()
        photos.sort(key=lambda title: name not in title.casefold())
        return photos[: _TRIED * wanted]
