"""How alike strangers and photos of one person are, before a gallery has taught it.

``dlib`` is measured; the others are estimates that a gallery of a few dozen people outweighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gallery.likeness import SAME_PERSON

__all__ = ["Prior", "prior_of"]


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a backbone.

    Attributes:
        strangers: Cosines that the shares ``tail.SHARES`` of strangers reach, rising.
        same_person: Cosine of two photos of one person, in the median.
        weight: How much a gallery must bring to outweigh it; 1 for measured ones.
    """

    strangers: tuple[float, ...]
    same_person: float
    weight: float


# Measured with recipe 2 as the mean of two populations, by ``tail``: the 1,775 photos of LFW's
# development view (1.6 million pairs of strangers, at 30: 0.9119, at 40: 0.9309) and 2,981
# portraits of 597 actors, singers and hosts (4.4 million pairs, at 30: 0.9077, at 40: 0.9256).
# LFW's strangers are more alike: mostly men of one age. Two photos of one person have 0.9618 and
# 0.9611 in the median. Of LFW's strangers then 1.2 % score 30 or more, of the others 0.8 %.
_DLIB = Prior(
    strangers=(0.7451, 0.7867, 0.8358, 0.8803, 0.9098, 0.9282, 0.9417, 0.9516, 0.9588, 0.9642),
    same_person=SAME_PERSON["dlib"],
    weight=1.0,
)

# Estimates. Published code that uses these networks takes two photos for one person from a cosine
# of 0.5 on (a cosine distance of 0.5); the authors report that 91 to 94 % of IJB-B's pairs of
# templates are told apart at one false match in 1,000 (Cao et al., VGGFace2, FG 2018, table VIII),
# so that one stranger in 1,000 must lie a little above that threshold and the median pair of one
# person well above it. Features are not negative (after a ReLU), so strangers are not at 0.
_VGGFACE2 = Prior(
    strangers=(0.08, 0.15, 0.26, 0.38, 0.47, 0.53, 0.58, 0.62, 0.65, 0.67),
    same_person=SAME_PERSON["resnet"],
    weight=0.2,
)

_PRIORS: Mapping[str, Prior] = MappingProxyType(
    {"dlib": _DLIB, "resnet": _VGGFACE2, "senet": _VGGFACE2}
)


def prior_of(backbone: str) -> Prior:
    """The prior of a backbone; that of the VGGFace2 networks for one that nothing is known of."""
    return _PRIORS.get(backbone, _VGGFACE2)
