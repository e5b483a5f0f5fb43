"""Every error this project raises on purpose, sorted by who can mend it: sender, operator, time.

The message is one sentence for the person who can mend it and names no photo, user or token.
What the sender is told comes from ``bot/wording`` by ``key``; ``details`` fill its placeholders.
"""

from typing import ClassVar


class LookalikeError(Exception):
    """Base of every error raised on purpose; a class without a ``key`` has that of its base."""

    key: ClassVar[str] = "error.internal"

    def __init_subclass__(cls, *, key: str = "") -> None:
        cls.key = key or cls.key

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details: dict[str, object] = details


class PhotoProblem(LookalikeError, key="error.photo"):
    """The sender can mend it with another photo."""


class NotAnImage(PhotoProblem, key="error.not_an_image"):
    """The bytes are no picture, or of a kind that is not read."""


class DamagedImage(NotAnImage, key="error.damaged"):
    """The file is a picture, and can't be decoded."""


class PhotoGone(PhotoProblem, key="stale.photo"):
    """The platform no longer holds the photo."""


class TooLarge(PhotoProblem, key="error.too_large"):
    """More bytes, pixels or frames than the settings allow; ``limit`` is how many."""


class TooHeavy(TooLarge, key="error.too_heavy"):
    """Decoding takes more time or memory than the settings allow."""


class NoFace(PhotoProblem, key="error.no_face"):
    """There is no face in the picture."""


class FaceTooSmall(PhotoProblem, key="error.face_too_small"):
    """There are faces, but none is large enough to be compared."""


class SetupProblem(LookalikeError, key="error.setup"):
    """The operator can mend it: exit code 78."""


class BadSettings(SetupProblem):
    """A setting is unknown or has a value that can't be used."""


class BadToken(SetupProblem):
    """A platform refused the token."""


class WeightsMissing(SetupProblem, key="error.weights_missing"):
    """The weights of a backbone are not on this machine."""


class WeightsCorrupt(SetupProblem, key="error.weights_missing"):
    """A weight file is truncated, changed, of a wrong shape or not finite."""


class GalleryMissing(SetupProblem, key="error.gallery_missing"):
    """There is no gallery, or nobody is in it."""


class GalleryCorrupt(SetupProblem):
    """The gallery's files contradict each other."""


class SpaceMismatch(SetupProblem):
    """Vectors of two embedding spaces were about to be compared."""


class TryLater(LookalikeError, key="error.try_later"):
    """The same request may work later."""


class Busy(TryLater, key="error.busy"):
    """The queue is full."""


class Heavy(Busy):
    """The picture takes much memory or time, and another one that does is being decoded."""


class TooFast(Busy, key="error.too_fast"):
    """One person has asked too often in a minute."""


class Deadline(TryLater, key="error.deadline"):
    """The answer took longer than the deadline."""


class SourceDown(TryLater):
    """A server that should answer does not."""
