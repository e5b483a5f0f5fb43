"""Downloads people from Wikidata and Wikimedia Commons into a gallery."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from gallery import registrar
from gallery.add import add
from gallery.database import changing
from gallery.never_again import REMOVED, barred
from gallery.progress import Progress, Report, no_progress
from gallery.screen import Reason
from gallery.sources.categories import Category
from gallery.sources.celebrities import Celebrity, most_famous
from gallery.sources.courier import Patience, Stopped
from gallery.sources.wikimedia import Servers, Wikimedia

if TYPE_CHECKING:
    from engine.engine import Engine
    from gallery.gallery import Gallery

__all__ = ["Harvest", "LeftOut", "Order", "download"]

_MORE_OF: Final = 4  # who can't be had is replaced from one part in so many more people,
_MORE: Final = 20  # and these


@dataclass(frozen=True, slots=True)
class Order:
    """Who is wanted.

    Attributes:
        categories: At least one.
        limit: So many people, the most famous who can be had.
        min_fame: Nobody with articles in fewer wikis.
        portraits: At most so many of each person.
        fairly: Every category in turn gives its most famous, instead of the most famous of all.
        credited: Further categories that nobody is looked for in, but people may belong to.
    """

    categories: tuple[Category, ...]
    limit: int
    min_fame: int = 0
    portraits: int = 3
    fairly: bool = False
    credited: tuple[Category, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Somebody without a portrait.

    Attributes:
        name: Whom.
        q_id: Their Wikidata id.
        reason: Why.
    """

    name: str
    q_id: str
    reason: str


@dataclass(slots=True)
class Harvest:
    """What a download did.

    Attributes:
        wanted: How many people there should be.
        there: How many of them are in the gallery now.
        left_out: Who can't be had, but for those who were not reached.
        report: What became of the pictures.
        warnings: Sentences on what may be wrong with the table of categories.
    """

    wanted: int = 0
    there: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    warnings: tuple[str, ...] = ()

    def reasons(self) -> Counter[str]:
        """People left out, by reason."""
        return Counter(one.reason.partition(" (")[0] for one in self.left_out)

    def to_json(self) -> dict[str, Any]:
        """As printed with ``--json``."""
        return {
            "people": self.wanted,
            "in_gallery": self.there,
            "left_out": [
                {"person": one.name, "wikidata_id": one.q_id, "reason": one.reason}
                for one in self.left_out
            ],
            "left_out_by_reason": dict(self.reasons().most_common()),
            "warnings": list(self.warnings),
            **self.report.to_json(),
        }


def download(
    gallery: Gallery,
    engine: Engine,
    order: Order,
    servers: Servers,
    *,
    backbones: Sequence[str],
    progress: Progress = no_progress,
    warn: Callable[[str], None] | None = None,
    refresh: bool = False,
    patience: Patience | None = None,
    stop: threading.Event | None = None,
) -> Harvest:
    """Adds the people of an order; may be stopped at any moment and goes on from there.

    Args:
        gallery: Where.
        engine: Sees and embeds.
        order: Who.
        servers: Whom to ask.
        backbones: Names, at least one; the first compares faces, dlib if it is among them.
        progress: Told about lists, people and vectors.
        warn: Told at once what may be wrong with the table of categories.
        refresh: Ask again what was answered in the last 30 days.
        patience: How long to wait for the servers.
        stop: Ends the work, pauses included, when somebody sets it; it is set afterwards.

    Raises:
        SourceDown: If a server does not answer; what was done is kept.
        Busy: If another process is downloading, or changing the gallery.
        SetupProblem: If something has to be set up first.
    """
    judge = "dlib" if "dlib" in backbones else backbones[0]
    with Wikimedia(
        gallery, engine, servers, backbone=judge, patience=patience, stop=stop
    ) as source:
        if refresh:
            source.journal.forget("people", "members", "file", "verdict", "labels")
        try:
            return _Harvester(source, gallery, engine, order, backbones, progress).run(warn)
        except Stopped:
            return Harvest(report=Report(interrupted=True))


class _Harvester:
    """One download."""

    def __init__(
        self,
        source: Wikimedia,
        gallery: Gallery,
        engine: Engine,
        order: Order,
        backbones: Sequence[str],
        progress: Progress,
    ) -> None:
        self._source = source
        self._gallery = gallery
        self._engine = engine
        self._order = order
        self._backbones = backbones
        self._progress = progress
        self._harvest = Harvest()

    def run(self, warn: Callable[[str], None] | None) -> Harvest:
        """Takes people in by fame; for those who can't be had the next ones, within reason."""
        order, source, harvest = self._order, self._source, self._harvest
        away = barred(self._gallery)
        most = order.limit + order.limit // _MORE_OF + _MORE
        found = source.survey(
            order.categories,
            people=most + len(away.keys),
            min_fame=order.min_fame,
            credited=order.credited,
            progress=self._progress,
        )
        harvest.warnings = source.misfits(order.categories)
        if warn is not None:
            for warning in harvest.warnings:
                warn(warning)
        welcome = [one for one in found if source.picker.person(one) not in away]
        harvest.wanted = min(order.limit, len(welcome))
        seen: set[str] = set()
        while len(seen) < most and harvest.there < order.limit and not harvest.report.interrupted:
            count = min(most, len(seen) + order.limit - harvest.there)
            people = most_famous(welcome, count, fairly=order.fairly)
            people = tuple(one for one in people if one.q_id not in seen)
            if not people:
                break
            seen.update(one.q_id for one in people)
            self._take_in(people)
        harvest.left_out += [
            LeftOut(one.name or one.q_id, one.q_id, REMOVED)
            for one in found[: order.limit]
            if source.picker.person(one) in away
        ]
        return harvest

    def _take_in(self, people: Sequence[Celebrity]) -> None:
        source, harvest = self._source, self._harvest
        _complete_known(self._gallery, source, people)
        before = harvest.there

        def people_only(what: str, done: int, total: int | None) -> None:
            if what == "people":  # not their photos; and those who come after others go on counting
                self._progress(what, before + done, None if total is None else before + total)
            elif what != "photos":
                self._progress(what, done, total)

        portraits = source.portraits(people, self._order.portraits, people_only)
        try:
            report = add(
                self._gallery,
                self._engine,
                portraits,
                backbones=self._backbones,
                progress=people_only,
            )
        except BaseException:
            source.settle(everything=False)
            raise
        finally:
            portraits.close()
        _remember_too_large(source, people, report)
        source.settle(everything=not report.interrupted)
        harvest.report = _joined(harvest.report, report)
        _account(harvest, self._gallery, source, people)


def _joined(one: Report, other: Report) -> Report:
    """What two runs did together."""
    return Report(
        added=one.added + other.added,
        unchanged=one.unchanged + other.unchanged,
        people_added=one.people_added + other.people_added,
        rejected=one.rejected + other.rejected,
        embedded=one.embedded + other.embedded,
        dropped=one.dropped + other.dropped,
        swept=one.swept + other.swept,
        seconds=one.seconds + other.seconds,
        interrupted=one.interrupted or other.interrupted,
    )


def _complete_known(gallery: Gallery, source: Wikimedia, people: Iterable[Celebrity]) -> None:
    """Notes what is new about people who are in the gallery: categories, fame."""
    there = {person.key: person for person in gallery.people()}
    news = []
    for celebrity in people:
        person = source.picker.person(celebrity)
        known = there.get(person.key)
        if known is not None and (
            not set(person.categories) <= set(known.categories)
            or (person.fame, person.country or known.country, person.gender or known.gender)
            != (known.fame, known.country, known.gender)
        ):
            news.append(person)
    if news:
        with gallery.writing(), changing(gallery.catalogue.database) as connection:
            for person in news:
                registrar.enrol_person(connection, person)
            registrar.note_change(connection)
        gallery.refresh()


def _remember_too_large(source: Wikimedia, people: Iterable[Celebrity], report: Report) -> None:
    """Notes the only refusal for good that the gallery itself does not remember."""
    too_large = {
        one.photo.removeprefix("File:") for one in report.rejected if one.reason == Reason.TOO_LARGE
    }
    if too_large:
        for celebrity in people:
            for title in too_large.intersection(celebrity.images):
                source.picker.note(celebrity.q_id, title, Reason.TOO_LARGE)


def _account(
    harvest: Harvest, gallery: Gallery, source: Wikimedia, people: Iterable[Celebrity]
) -> None:
    there = {person.key for person in gallery.people()}
    for celebrity in people:
        person = source.picker.person(celebrity)
        if person.key in there:
            harvest.there += 1
            continue
        reason = source.picker.reason(celebrity)
        if reason is None and not harvest.report.interrupted:
            reason = "no picture could be fetched"
        if reason is not None:
            harvest.left_out.append(LeftOut(person.name, celebrity.q_id, reason))
