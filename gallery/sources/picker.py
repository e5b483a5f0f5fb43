"""Which pictures become portraits of somebody: fetched, compared, or passed over for a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gallery.catalogue import Person
from gallery.screen import SCREENING, Reason
from gallery.sources import FoundPerson, FoundPortrait
from gallery.sources.celebrities import Celebrity
from gallery.sources.commons import CommonsFile
from gallery.sources.same_face import ANOTHER_FACE, FaceCheck, Seen
from gallery.sources.spool import Missing, Spool, Spooled

if TYPE_CHECKING:
    from gallery.collection import Gallery
    from gallery.sources.journal import Journal

__all__ = ["Picker", "PictureReader", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Somebody, and the pictures to try, best first.

    Attributes:
        celebrity: Who.
        files: The pictures.
        own: So many of them, from the first on, are Wikidata's: they need no comparison.
    """

    celebrity: Celebrity
    files: tuple[CommonsFile, ...]
    own: int


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
        self._keys = {
            person.wikidata_id: person.key
            for person in gallery.people()
            if person.wikidata_id is not None
        }

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
        person = self.person(plan.celebrity)
        found: list[FoundPortrait] = []
        first: Seen | Spooled | None = None
        have = 0
        for place, file in enumerate(plan.files):
            if have >= each:
                break
            if file.problem is not None or self._refusal(plan.celebrity, file.title) is not None:
                continue
            owner = self._owner(file.title)
            if owner is not None:
                have += 1
                first = first or self._recalled(owner, file.title)
                continue
            if place >= plan.own:
                first = self._face(first)
                if first is None:
                    break
            picture = self._fetched(plan.celebrity, file, first if place >= plan.own else None)
            if picture is not None:
                first = first or picture
                have += 1
                found.append(_portrait(person, file, picture))
        return found

    def _fetched(
        self, celebrity: Celebrity, file: CommonsFile, first: Seen | Spooled | None
    ) -> Spooled | None:
        """The picture, if it can be had and shows the face of the first."""
        picture = self._spool.fetch(file)()
        if isinstance(picture, Missing):
            self._notes[celebrity.q_id, file.title] = picture.reason
            if picture.for_good:
                self.note(celebrity.q_id, file.title, picture.reason)
            return None
        if isinstance(first, Seen) and not self._is_same(celebrity, file, picture, first):
            return None
        return picture

    def _is_same(
        self, celebrity: Celebrity, file: CommonsFile, picture: Spooled, first: Seen
    ) -> bool:
        seen = self._check.see(picture.path.read_bytes())
        if isinstance(seen, Seen) and self._check.same(first, seen):
            return True
        reason = ANOTHER_FACE if isinstance(seen, Seen) else str(seen)
        self.note(celebrity.q_id, file.title, reason)
        self._spool.drop(file.title)
        return False

    def _face(self, first: Seen | Spooled | None) -> Seen | None:
        """The face that others are compared with; looked for when it is needed."""
        if not isinstance(first, Spooled):
            return first
        seen = self._check.see(first.path.read_bytes())
        return None if isinstance(seen, Reason) else seen

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
