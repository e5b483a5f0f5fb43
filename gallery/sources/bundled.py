"""The starter gallery: two public-domain portraits that come with packages already installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec

from engine.errors import SourceDown, TooLarge
from gallery.records import FoundPerson, FoundPortrait

__all__ = ["bundled_portraits", "what_is_missing"]


@dataclass(frozen=True, slots=True)
class _Bundled:
    """A picture inside an installed package."""

    person: FoundPerson
    package: str
    folders: tuple[str, ...]
    author: str
    licence_url: str
    source_url: str

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def read(self, most_bytes: int) -> bytes:
        """The picture's bytes; imports its package."""
        try:
            data = resources.files(self.package).joinpath(*self.folders).read_bytes()
        except (ImportError, OSError) as problem:
            raise SourceDown(
                f"{self.package} no longer carries the photo of {self.person.name}"
            ) from problem
        if len(data) > most_bytes:
            raise TooLarge(f"the photo of {self.person.name} is larger than the settings allow")
        return data


_HOPPER = _Bundled(
    person=FoundPerson(
        key="name:grace hopper", name="Grace Hopper", categories=("science",), wikidata_id="Q11641"
    ),
    package="matplotlib",
    folders=("mpl-data", "sample_data", "grace_hopper.jpg"),
    author="James S. Davis, U.S. Navy",
    licence_url="https://commons.wikimedia.org/wiki/Template:PD-USGov-Military-Navy",
    source_url=(
        "https://commons.wikimedia.org/wiki/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg"
    ),
)
_COLLINS = _Bundled(
    person=FoundPerson(
        key="name:eileen collins", name="Eileen Collins", categories=("space", "science")
    ),
    package="skimage",
    folders=("data", "astronaut.png"),
    author="NASA",
    licence_url="https://commons.wikimedia.org/wiki/Template:PD-USGov-NASA",
    source_url="https://flic.kr/p/r9qvLn",  # named by the docstring of skimage.data.astronaut
)


def bundled_portraits() -> tuple[FoundPortrait, ...]:
    """The portraits whose packages are installed; both are with the extra demo."""
    return tuple(
        FoundPortrait(
            person=picture.person,
            origin=f"{picture.package}/{picture.folders[-1]}",
            read=picture.read,
            author=picture.author,
            licence="public domain",
            licence_url=picture.licence_url,
            source_url=picture.source_url,
        )
        for picture in (_HOPPER, _COLLINS)
        if picture.installed
    )


def what_is_missing() -> str | None:
    """A sentence on whom the starter gallery lacks and how to add them; None if it is whole."""
    missing = [one.person.name for one in (_HOPPER, _COLLINS) if not one.installed]
    if not missing:
        return None
    return (
        f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing from the starter "
        "gallery: photos for it come with the extra demo (`pip install 'lookalike[demo]'`)."
    )
