"""Examines a gallery: is everything there, is it whole, is everybody who they are said to be?

In the order of what depends on what: files and catalogue, vectors and scores, every picture, then
how alike the faces are. Where it may mend, it goes on until it finds nothing more to mend.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final

from engine.engine import Engine
from engine.errors import BadSettings
from engine.types import Space
from gallery.gallery import Gallery
from gallery.progress import Progress, no_progress
from gallery.verifying.findings import Examination, Finding, Kind, Remedy
from gallery.verifying.likeness import likeness_findings
from gallery.verifying.mending import Mender
from gallery.verifying.pictures import picture_findings
from gallery.verifying.storage import catalogue_findings, roster, space_findings, stray_findings

__all__ = ["verify"]

_ROUNDS: Final = 10  # of comparing faces: what is removed may show what else is wrong


def verify(
    gallery: Gallery,
    engine: Engine,
    *,
    backbone: str | None = None,
    fix: bool = False,
    progress: Progress = no_progress,
) -> Examination:
    """Examines a gallery, and mends what is safe to mend if that is wanted.

    Args:
        gallery: Which.
        engine: Sees, and makes vectors.
        backbone: Compares faces; None for dlib if the gallery is built for it, else the first.
        fix: Whether to mend. What only a person can judge is left as it is.
        progress: Told about vectors, pictures and faces.

    Returns:
        What was found; ``interrupted`` after Ctrl-C, with everything kept that was mended.

    Raises:
        Busy: If another process is changing the gallery and it is to be mended.
        BadSettings: If it is not built for that backbone.
    """
    began = time.perf_counter()
    examination = Examination()
    with gallery.writing() if fix else contextlib.nullcontext():
        try:
            _Examiner(gallery, engine, examination, fix=fix, progress=progress).run(backbone)
        except KeyboardInterrupt:
            examination.interrupted = True
        gallery.refresh()
    examination.people, examination.portraits = gallery.catalogue.counts()
    examination.seconds = time.perf_counter() - began
    return examination


class _Examiner:
    """One examination."""

    def __init__(
        self,
        gallery: Gallery,
        engine: Engine,
        examination: Examination,
        *,
        fix: bool,
        progress: Progress,
    ) -> None:
        self._gallery = gallery
        self._engine = engine
        self._examination = examination
        self._fix = fix
        self._progress = progress
        self._turned: frozenset[int] = frozenset()
        self._usable = self._usable_spaces()
        self._mender = Mender(gallery, engine, self._usable, progress)
        examination.mended = self._mender.mended

    def run(self, backbone: str | None) -> None:
        """Examines everything, in the order of what depends on what."""
        spaces = [state.space for state in self._gallery.catalogue.space_states()]
        if backbone is not None and all(space.backbone != backbone for space in spaces):
            raise BadSettings(
                f"the gallery is not built for {backbone}: run `lookalike gallery build --model "
                f"{backbone}`, or choose another one"
            )
        self._settle(stray_findings(self._gallery, alone=self._fix))
        everybody = roster(self._gallery)
        found, sound = space_findings(self._gallery, everybody, self._progress)
        sampled = [space for space in sound if space in self._usable]
        pictures, self._turned = picture_findings(
            self._gallery, self._engine, everybody, sampled, self._progress
        )
        self._settle([one for one in pictures if one.kind is not Kind.VECTORS])
        self._settle([*found, *(one for one in pictures if one.kind is Kind.VECTORS)])
        states = self._gallery.catalogue.space_states()
        sound = [state.space for state in states if not self._is_found(state.space)]
        self._compare(_judge(sound, backbone))
        self._settle(catalogue_findings(self._gallery))
        if self._fix:
            self._settle(stray_findings(self._gallery, alone=True))

    def _compare(self, space: Space | None) -> None:
        if space is None:
            self._examination.unchecked.append(
                "faces could not be compared: there are no sound vectors"
            )
            return
        self._examination.backbone = space.backbone
        for _ in range(_ROUNDS):
            everybody = roster(self._gallery)
            found = likeness_findings(self._gallery, space, everybody, self._turned, self._progress)
            done = len(self._mender.mended)
            left = self._mender.apply(found) if self._fix else found
            if len(self._mender.mended) == done:
                break
        self._examination.findings += left

    def _settle(self, findings: Sequence[Finding]) -> None:
        left = self._mender.apply(findings) if self._fix else findings
        self._examination.findings += left

    def _is_found(self, space: Space) -> bool:
        """Whether a space's vectors were found to be damaged and could not be made anew."""
        return any(
            one.space_id == space.id and one.remedy is Remedy.REBUILD
            for one in self._examination.findings
        )

    def _usable_spaces(self) -> list[Space]:
        """The gallery's spaces in which this machine can make vectors."""
        usable = []
        for state in self._gallery.catalogue.space_states():
            space = state.space
            why = self._engine.why_unavailable(space.backbone)
            if why is None and self._engine.backbone(space.backbone).space == space:
                usable.append(space)
            else:
                why = why or "this version of the program makes others"
                self._examination.unchecked.append(
                    f"vectors of {space.backbone} can't be made again here: {why}"
                )
        return usable


def _judge(spaces: Sequence[Space], backbone: str | None) -> Space | None:
    """The space in which faces are compared."""
    wanted = [space for space in spaces if space.backbone == (backbone or "dlib")]
    others = spaces if backbone is None else ()
    return next((space for space in (*wanted, *others)), None)
