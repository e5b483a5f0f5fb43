"""The starter gallery: two public-domain portraits that come with the program."""

from __future__ import annotations

from dataclasses import dataclass

from engine.backbones.network import portrait_jpeg
from engine.errors import TooLarge
from gallery.records import FoundPerson, FoundPortrait


@dataclass(frozen=True, slots=True)
class _Bundled:
    """A picture that comes with the program; both are works of the US government."""

    name: str
    person: FoundPerson
    author: str
    licence_url: str
    source_url: str

    def read(self, most_bytes: int) -> bytes:
        """The picture's bytes."""
        data = portrait_jpeg(self.name)
        if len(data) > most_bytes:
            raise TooLarge(f"the photo of {self.person.name} is larger than the settings allow")
        return data


_HOPPER = _Bundled(
    name="grace_hopper",
    person=FoundPerson(
        key="name:grace hopper", name="Grace Hopper", categories=("science",), wikidata_id="Q11641"
    ),
    author="James S. Davis, U.S. Navy",
    licence_url="https://commons.wikimedia.org/wiki/Template:PD-USGov-Military-Navy",
    source_url=(
        "https://commons.wikimedia.org/wiki/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg"
    ),
)
_COLLINS = _Bundled(
    name="eileen_collins",
    person=FoundPerson(
        key="name:eileen collins", name="Eileen Collins", categories=("space", "science")
    ),
    author="NASA",
    licence_url="https://commons.wikimedia.org/wiki/Template:PD-USGov-NASA",
    source_url="https://flic.kr/p/r9qvLn",
)


def bundled_portraits() -> tuple[FoundPortrait, ...]:
    """Grace Hopper and Eileen Collins."""
    return tuple(
        FoundPortrait(
            person=picture.person,
            origin=f"starter/{picture.name}.jpg",
            read=picture.read,
            author=picture.author,
            licence="public domain",
            licence_url=picture.licence_url,
            source_url=picture.source_url,
        )
        for picture in (_HOPPER, _COLLINS)
    )
