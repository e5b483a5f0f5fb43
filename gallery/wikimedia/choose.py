"""Which pictures become somebody's portraits, and why the others do not."""

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from engine.engine import Engine
from engine.errors import PhotoProblem, TooLarge
from engine.types import Embedding, Face
from gallery.gallery import Gallery
from gallery.records import Credit, FoundPerson, FoundPortrait, Person, Portrait, folded
from gallery.scores import prior
from gallery.screen import SCREENING, Reason, clear_face
from gallery.wikimedia.cache import Cache
from gallery.wikimedia.categories import Celebrity
from gallery.wikimedia.commons import Commons, CommonsFile

_ONE_IN: Final = 1_000.0
"""A likeness that one stranger in so many has counts as the same face. With dlib that is a cosine
of 0.928; two photos of one person have 0.960 in the median (gallery/scores)."""

_COMPANY: Final = re.compile(r"[&,;+]|\b(?:and|with|und|mit|et|avec|con|e|y|i)\b", re.IGNORECASE)
"""In a title: the picture may be of somebody else as well."""


@dataclass(slots=True)
class _Chosen:
    """What has been chosen of somebody so far."""

    celebrity: Celebrity
    face: Embedding | None = None  # the one that others are compared with
    have: int = 0  # portraits there will be, with those in the gallery
    files: list[CommonsFile] = field(default_factory=list)  # what the gallery lacks; in the cache


class Chooser:
    """Chooses portraits that the gallery lacks; ``backbone`` compares faces. Safe to share."""

    def __init__(
        self, gallery: Gallery, engine: Engine, backbone: str, cache: Cache, commons: Commons
    ) -> None:
        self._gallery, self._engine, self._backbone = gallery, engine, backbone
        self._cache, self._commons = cache, commons
        # The prior, not what the gallery has learned: the outcome must not change as it grows.
        self._strangers = prior(engine.backbone(backbone).space)
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
            country=celebrity.country and celebrity.country[:100],
            gender=celebrity.gender and celebrity.gender[:50],
            fame=celebrity.fame,
        )

    def why_left_out(self, celebrity: Celebrity) -> str | None:
        """Why somebody has no portrait; None if their pictures were not looked at."""
        if celebrity.name is None:
            return "no name"
        for known in self._cache.get_many("file", celebrity.images).values():
            fate = self._fate(celebrity, CommonsFile(**known))
            if isinstance(fate, str):
                return fate
        return None

    def choose(
        self,
        celebrity: Celebrity,
        own: Iterable[CommonsFile],
        others: Callable[[], Sequence[CommonsFile]],
        each: int,
    ) -> list[FoundPortrait]:
        """The pictures of somebody that the gallery lacks, looked at as far as need be.

        There will be ``each`` portraits, with those in the gallery. ``own`` are Wikidata's, best
        first, which need no comparison; ``others`` asks for those of the person's category.
        """
        chosen = _Chosen(celebrity)
        for file in own:
            if chosen.have < each:
                self._try_own(chosen, file)
        if chosen.have < each:
            self._try_others(chosen, others(), each)
        if chosen.face is not None:
            self._claim(celebrity, chosen.face)
        person, read_picture = self.person(celebrity), self._cache.read_picture
        return [
            FoundPortrait(
                person,
                f"File:{file.title}",
                partial(read_picture, file.title),
                **{name: getattr(file, name) for name in Credit.__slots__},
            )
            for file in chosen.files
        ]

    def _try_own(self, chosen: _Chosen, file: CommonsFile) -> None:
        """One of Wikidata's pictures; without a clear face it does not count.

        It is handed over nevertheless: the gallery refuses it and remembers why. It does not
        remember that a picture is too large, so that is noted here.
        """
        face = self._looked_at(chosen, file)
        if face is Reason.TOO_LARGE:
            self._refuse(chosen, file, face)
        elif face is not None:
            chosen.files.append(file)
            if isinstance(face, Embedding):
                chosen.face = chosen.face or face
                chosen.have += 1

    def _try_others(self, chosen: _Chosen, files: Iterable[CommonsFile], each: int) -> None:
        """Pictures of the person's category: those that show the face of the first one.

        Without a picture of Wikidata's, a face that two of the category show is the person's;
        without two that agree, that of a picture which is called like the person and no more.
        """
        strangers: list[tuple[CommonsFile, Embedding]] = []
        for file in files:
            if chosen.have >= each:
                return
            face = self._looked_at(chosen, file)
            if isinstance(face, Reason):
                self._refuse(chosen, file, face)
            elif face is not None:
                strangers.append((file, face))
                if chosen.face is None:
                    same = [one for _, one in strangers if self._same(one, face)]
                    chosen.face = same[0] if len(same) > 1 else None
                if chosen.face is not None:
                    self._compare(chosen, strangers)
                    strangers = []
        name = folded(chosen.celebrity.name or "")
        for file, face in strangers:
            rest = folded(file.title).partition(name)
            if chosen.face is None and name and rest[1] and not _COMPANY.search(rest[0] + rest[2]):
                chosen.face = face
        self._compare(chosen, strangers)

    def _compare(self, chosen: _Chosen, strangers: Iterable[tuple[CommonsFile, Embedding]]) -> None:
        for file, face in strangers:
            if chosen.face is not None and self._same(chosen.face, face):
                chosen.files.append(file)
                chosen.have += 1
            else:
                unknown = "nothing shows that it is the person"
                self._refuse(chosen, file, "another face" if chosen.face else unknown)

    def _looked_at(self, chosen: _Chosen, file: CommonsFile) -> Embedding | Reason | None:
        """The one clear face in a picture, or why it has none; None if its fate is decided."""
        fate = self._fate(chosen.celebrity, file)
        if isinstance(fate, Person):  # it is a portrait already
            chosen.have += 1
            sha256 = self._cache.get("sha256", file.title)
            mine = (one for one in self._gallery.portraits(fate.id) if one.sha256 == sha256)
            chosen.face = chosen.face or next(map(self._face_in, mine), None)
        content = self._commons.fetch(file) if fate is None else fate
        if not isinstance(content, bytes):
            return None
        try:
            photo = self._engine.decode(content)
        except TooLarge:
            return Reason.TOO_LARGE
        except PhotoProblem:
            return Reason.UNREADABLE
        face = clear_face(photo, self._engine.detect(photo))
        if isinstance(face, Reason):
            return face
        return self._engine.embed([(photo, face)], self._backbone)[0]

    def _fate(self, celebrity: Celebrity, file: CommonsFile) -> Person | str | None:
        """Whose portrait a picture is, or why it is not taken; None if that is not decided."""
        reason: str | None = (
            file.problem
            or self._commons.missing(file.title)
            or self._cache.get("refusal", f"{celebrity.q_id} {file.title}")
        )
        sha256 = None if reason else self._cache.get("sha256", file.title)
        if sha256 is None:
            return reason
        known = self._gallery.known(sha256, SCREENING)
        if isinstance(known, Person) and known.key != self.person(celebrity).key:
            return f"{Reason.DUPLICATE} {known.name}"
        return known

    def _refuse(self, chosen: _Chosen, file: CommonsFile, reason: str) -> None:
        """Remembers why a picture is not taken, so that it is not fetched again."""
        self._cache.put("refusal", f"{chosen.celebrity.q_id} {file.title}", reason)
        self._cache.drop_pictures([file.title])

    def _claim(self, celebrity: Celebrity, face: Embedding) -> None:
        """Knows somebody of that name whom no Q-id names as this one, if the face is the same."""
        with self._lock:
            namesakes = self._unclaimed.get(folded(celebrity.name or ""), [])
            for person in namesakes if celebrity.q_id not in self._keys else ():
                faces = map(self._face_in, self._gallery.portraits(person.id))
                if any(one is not None and self._same(one, face) for one in faces):
                    self._keys[celebrity.q_id] = person.key
                    namesakes.remove(person)
                    return

    def _face_in(self, portrait: Portrait) -> Embedding | None:
        """The face of a portrait in the gallery, from its thumbnail; None without a sound one."""
        try:
            photo = self._engine.decode(self._gallery.photo(portrait) or b"")
        except PhotoProblem:
            return None
        face = Face(portrait.box, portrait.landmarks, confidence=1.0)
        return self._engine.embed([(photo, face)], self._backbone)[0]

    def _same(self, one: Embedding, other: Embedding) -> bool:
        """Whether two faces are one person's, as far as can be told."""
        return self._strangers.one_in(one.cosine(other)) >= _ONE_IN
