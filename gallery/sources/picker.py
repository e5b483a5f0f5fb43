"""Which pictures become portraits of somebody: fetched, compared, or passed over for a reason."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gallery.records import FoundPerson, FoundPortrait, Person, Portrait, folded
from gallery.screen import SCREENING, Reason
from gallery.sources.celebrities import Celebrity
from gallery.sources.commons import CommonsFile
from gallery.sources.same_face import ANOTHER_FACE, FaceCheck, Seen
from gallery.sources.spool import Missing, Spool, Spooled

if TYPE_CHECKING:
    from gallery.gallery import Gallery
    from gallery.sources.journal import Journal

__all__ = ["Picker", "PictureReader", "Plan"]


_NOBODY_TO_COMPARE: Final = "nothing shows that it is the person"

_COMPANY: Final = re.compile(r"[&,;+]|\b(?:and|with|und|mit|et|avec|con|e|y|i)\b", re.IGNORECASE)
"""In a title: the picture may be of somebody else as well."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Somebody, and the pictures to try, best first.

    Attributes:
        celebrity: Who.
        own: Wikidata's pictures: they need no comparison.
        others: Asks for those of the person's category on Commons; only called if they are needed.
    """

    celebrity: Celebrity
    own: tuple[CommonsFile, ...]
    others: Callable[[], Sequence[CommonsFile]]


class Picker:
    """Picks portraits; safe to use from several threads.

    Args:
        gallery: What it has is not fetched.
        journal: Remembers which pictures are passed over.
        spool: Fetches.
        check: Compares faces.
    """

    def __init__(self, gallery: Gallery, journal: Journal, spool: Spool, check: FaceCheck) -> None:
        self._gallery = gallery
        self._journal = journal
        self._spool = spool
        self._check = check
        self._notes: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._unclaimed: dict[str, list[Person]] = {}  # people without a Q-id, by folded name
        for person in gallery.people():
            if person.wikidata_id is not None:
                self._keys[person.wikidata_id] = person.key
            else:
                self._unclaimed.setdefault(folded(person.name), []).append(person)

    def person(self, celebrity: Celebrity) -> FoundPerson:
        """Somebody as the gallery knows them: people whom it has already keep their key."""
        return FoundPerson(
            key=self._keys.get(celebrity.q_id, celebrity.q_id),
            name=celebrity.name or celebrity.q_id,
            categories=celebrity.categories,
            wikidata_id=celebrity.q_id,
            country=None if celebrity.country is None else celebrity.country[:100],
            gender=None if celebrity.gender is None else celebrity.gender[:50],
            fame=celebrity.fame,
        )

    def reason(self, celebrity: Celebrity) -> str | None:
        """Why somebody has no portrait; None if their pictures were not looked at."""
        if celebrity.name is None:
            return "no name"
        for known in self._journal.get_many("file", celebrity.images).values():
            file = CommonsFile(**known)
            reason = file.problem or self._refusal(celebrity, file.title)
            if reason is not None:
                return reason
        return None

    def note(self, q_id: str, title: str, reason: str) -> None:
        """Remembers why a picture is not taken, so that it is not fetched again."""
        self._journal.put("verdict", f"{q_id} {title}", reason)

    def pick(self, plan: Plan, each: int) -> list[FoundPortrait]:
        """The pictures of somebody that the gallery lacks, looked at as far as need be.

        Raises:
            SourceDown: If the server does not answer.
        """
        picked = _Picked(plan.celebrity)
        for file in plan.own:
            if picked.have < each:
                self._take_own(picked, file)
        if picked.have < each:
            self._take_others(picked, plan.others(), each)
        if picked.first is not None:
            self._claim(plan.celebrity, picked.first)
        person = self.person(plan.celebrity)
        return [_portrait(person, file, picture) for file, picture in picked.found]

    def _take_own(self, picked: _Picked, file: CommonsFile) -> None:
        """One of Wikidata's pictures; without a clear face it does not count.

        It is handed over nevertheless: the gallery refuses it and remembers why.
        """
        if self._known(picked, file):
            return
        picture = self._fetched(picked.celebrity, file)
        if picture is not None:
            picked.found.append((file, picture))
            seen = self._check.see(picture.path.read_bytes())
            if isinstance(seen, Seen):
                picked.first = picked.first or seen
                picked.have += 1

    def _take_others(self, picked: _Picked, files: Sequence[CommonsFile], each: int) -> None:
        """Pictures of the person's category that show the face of the first one."""
        strangers: list[tuple[CommonsFile, Spooled, Seen]] = []
        for file in files:
            if picked.have >= each:
                break
            if self._known(picked, file):
                continue
            picture = self._fetched(picked.celebrity, file)
            seen = picture and self._check.see(picture.path.read_bytes())
            if picture is None or not isinstance(seen, Seen):
                if picture is not None:
                    self._pass_over(picked.celebrity, file, str(seen))
            elif picked.first is None:
                strangers.append((file, picture, seen))
                self._agree(picked, strangers)
            elif self._check.same(picked.first, seen):
                picked.take(file, picture)
            else:
                self._pass_over(picked.celebrity, file, ANOTHER_FACE)
        if strangers and picked.first is None:
            self._trust_a_title(picked, strangers)

    def _agree(self, picked: _Picked, strangers: list[tuple[CommonsFile, Spooled, Seen]]) -> None:
        """Without a picture of Wikidata's: a face that two of the category show is the person's."""
        _, _, latest = strangers[-1]
        same = [one for one in strangers if self._check.same(one[2], latest)]
        if len(same) > 1:
            picked.first = same[0][2]
            for file, picture, seen in strangers:
                if self._check.same(picked.first, seen):
                    picked.take(file, picture)
                else:
                    self._pass_over(picked.celebrity, file, ANOTHER_FACE)

    def _trust_a_title(
        self, picked: _Picked, strangers: Iterable[tuple[CommonsFile, Spooled, Seen]]
    ) -> None:
        """Without two that agree: the first picture that is called like the person and no more."""
        name = folded(picked.celebrity.name or "")
        for file, picture, seen in strangers:
            rest = folded(file.title).partition(name)
            if picked.first is None and name and rest[1] and not _COMPANY.search(rest[0] + rest[2]):
                picked.first = seen
                picked.take(file, picture)
            else:
                self._pass_over(picked.celebrity, file, _NOBODY_TO_COMPARE)

    def _known(self, picked: _Picked, file: CommonsFile) -> bool:
        """Whether a picture need not be fetched; one that is a portrait already counts."""
        celebrity = picked.celebrity
        if file.problem is not None or self._refusal(celebrity, file.title) is not None:
            return True
        owner = self._owner(file.title)
        if owner is None:
            return False
        picked.have += 1
        picked.first = picked.first or self._recalled(owner, file.title)
        return True

    def _fetched(self, celebrity: Celebrity, file: CommonsFile) -> Spooled | None:
        """The picture, if it can be had."""
        picture = self._spool.fetch(file)()
        if isinstance(picture, Missing):
            self._notes[celebrity.q_id, file.title] = picture.reason
            if picture.for_good:
                self.note(celebrity.q_id, file.title, picture.reason)
            return None
        return picture

    def _pass_over(self, celebrity: Celebrity, file: CommonsFile, reason: str) -> None:
        self.note(celebrity.q_id, file.title, reason)
        self._spool.drop(file.title)

    def _claim(self, celebrity: Celebrity, face: Seen) -> None:
        """Knows somebody of that name whom no Q-id names as this one, if the face is the same.

        Two people of one name stay two.
        """
        with self._lock:
            namesakes = self._unclaimed.get(folded(celebrity.name or ""), [])
            if celebrity.q_id in self._keys:
                return
            for person in namesakes:
                if any(
                    self._shows(portrait, face) for portrait in self._gallery.portraits(person.id)
                ):
                    self._keys[celebrity.q_id] = person.key
                    namesakes.remove(person)
                    return

    def _shows(self, portrait: Portrait, face: Seen) -> bool:
        seen = self._check.recall(portrait)
        return isinstance(seen, Seen) and self._check.same(seen, face)

    def _recalled(self, owner: Person, title: str) -> Seen | None:
        sha256 = self._spool.sha256(title)
        for portrait in self._gallery.portraits(owner.id):
            if portrait.sha256 == sha256:
                seen = self._check.recall(portrait)
                return None if isinstance(seen, Reason) else seen
        return None

    def _owner(self, title: str) -> Person | None:
        """Whose portrait a picture is already."""
        sha256 = self._spool.sha256(title)
        known = None if sha256 is None else self._gallery.catalogue.known(sha256, SCREENING)
        return known if isinstance(known, Person) else None

    def _refusal(self, celebrity: Celebrity, title: str) -> str | None:
        """Why a picture is not taken as a portrait of somebody, as far as it was looked at."""
        key = (celebrity.q_id, title)
        verdict: str | None = self._notes.get(key) or self._journal.get("verdict", " ".join(key))
        sha256 = None if verdict else self._spool.sha256(title)
        if sha256 is None:
            return verdict
        known = self._gallery.catalogue.known(sha256, SCREENING)
        if isinstance(known, Person):
            mine = known.key == self.person(celebrity).key
            return None if mine else f"{Reason.DUPLICATE} {known.name}"
        return None if known is None else known.reason


@dataclass(slots=True)
class _Picked:
    """What has been picked of somebody so far.

    Attributes:
        celebrity: Who.
        first: The face that others are compared with.
        have: Portraits there will be, with those in the gallery.
        found: Pictures that the gallery lacks.
    """

    celebrity: Celebrity
    first: Seen | None = None
    have: int = 0
    found: list[tuple[CommonsFile, Spooled]] = field(default_factory=list)

    def take(self, file: CommonsFile, picture: Spooled) -> None:
        """Counts a picture as a portrait."""
        self.found.append((file, picture))
        self.have += 1


@dataclass(frozen=True, slots=True)
class PictureReader:
    """Reads a picture from the spool.

    Attributes:
        title: Of the file on Commons.
        picture: The copy.
    """

    title: str
    picture: Spooled

    def __call__(self, most_bytes: int) -> bytes:
        """As ``Spooled.read``."""
        return self.picture.read(most_bytes)


def _portrait(person: FoundPerson, file: CommonsFile, picture: Spooled) -> FoundPortrait:
    return FoundPortrait(
        person=person,
        origin=f"File:{file.title}",
        read=PictureReader(file.title, picture),
        author=file.author,
        licence=file.licence,
        licence_url=file.licence_url,
        source_url=file.source_url,
    )
