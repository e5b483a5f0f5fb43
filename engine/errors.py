"""Every error this project raises on purpose, sorted by who can mend it.

::

    LookalikeError
    ├── PhotoProblem      the sender: send another photo
    │   ├── NotAnImage        no picture, or a kind that is not read
    │   ├── TooLarge          bytes, pixels or frames above the limits
    │   ├── NoFace            a picture without a face
    │   └── FaceTooSmall      faces, but none of them large enough
    ├── SetupProblem      the operator: exit code 78
    │   ├── BadSettings       an unknown key, a wrong value
    │   ├── BadToken          a platform refused the token
    │   ├── WeightsMissing    a backbone's weights are not there
    │   ├── WeightsCorrupt    weights truncated, changed, of a wrong shape or not finite
    │   ├── GalleryMissing    no gallery, or one without people
    │   ├── GalleryCorrupt    a gallery whose files contradict each other
    │   └── SpaceMismatch     vectors of two models were about to be compared
    └── TryLater          time: the same request may work later
        ├── Busy              the queue is full
        │   └── TooFast           one person has asked too often
        ├── Deadline          the answer took too long
        └── SourceDown        a server that should answer does not

The message is one sentence for the person who can mend it and names no photo, user or token.
What the sender is told comes from ``bot/wording`` by ``key``; ``details`` fill its placeholders.
"""

from __future__ import annotations

from typing import ClassVar


class LookalikeError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        key: Name of the sentence in ``bot/wording`` that tells the sender.
        details: Values for the sentence's placeholders.
    """

    key: ClassVar[str] = "error.internal"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details: dict[str, object] = details


class PhotoProblem(LookalikeError):
    """The sender can mend it with another photo."""

    key = "error.photo"


class NotAnImage(PhotoProblem):
    """The bytes are no picture, or of a kind that is not read."""

    key = "error.not_an_image"


class TooLarge(PhotoProblem):
    """More bytes, pixels or frames than the settings allow."""

    key = "error.too_large"


class NoFace(PhotoProblem):
    """There is no face in the picture."""

    key = "error.no_face"


class FaceTooSmall(PhotoProblem):
    """There are faces, but none is large enough to be compared."""

    key = "error.face_too_small"


class SetupProblem(LookalikeError):
    """The operator can mend it."""

    key = "error.setup"


class BadSettings(SetupProblem):
    """A setting is unknown or has a value that can't be used."""


class BadToken(SetupProblem):
    """A platform refused the token."""


class WeightsMissing(SetupProblem):
    """The weights of a backbone are not on this machine."""

    key = "error.weights_missing"


class WeightsCorrupt(SetupProblem):
    """A weight file is truncated, changed, of a wrong shape or not finite."""

    key = "error.weights_missing"


class GalleryMissing(SetupProblem):
    """There is no gallery, or nobody is in it."""

    key = "error.gallery_missing"


class GalleryCorrupt(SetupProblem):
    """The gallery's files contradict each other."""


class SpaceMismatch(SetupProblem):
    """Vectors of two embedding spaces were about to be compared."""


class TryLater(LookalikeError):
    """The same request may work later."""

    key = "error.try_later"


class Busy(TryLater):
    """The queue is full."""

    key = "error.busy"


class TooFast(Busy):
    """One person has asked too often in a minute."""

    key = "error.too_fast"


class Deadline(TryLater):
    """The answer took longer than the deadline."""

    key = "error.deadline"


class SourceDown(TryLater):
    """A server that should answer does not."""
