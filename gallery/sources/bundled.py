"""The starter gallery: two public-domain portraits that come with the program."""

from functools import partial

from engine.backbones.network import portrait_jpeg
from engine.errors import TooLarge
from gallery.records import FoundPerson, FoundPortrait


def bundled_portraits() -> tuple[FoundPortrait, ...]:
    """Grace Hopper and Eileen Collins; both pictures are works of the US government."""
    hopper = FoundPerson("name:grace hopper", "Grace Hopper", ("science",), wikidata_id="Q11641")
    collins = FoundPerson("name:eileen collins", "Eileen Collins", ("space", "science"))
    commons = "https://commons.wikimedia.org/wiki"
    return (
        FoundPortrait(
            hopper,
            "starter/grace_hopper.jpg",
            partial(_read, "grace_hopper", hopper),
            author="James S. Davis, U.S. Navy",
            licence="public domain",
            licence_url=f"{commons}/Template:PD-USGov-Military-Navy",
            source_url=f"{commons}/File:Commodore_Grace_M._Hopper,_USN_(covered).jpg",
        ),
        FoundPortrait(
            collins,
            "starter/eileen_collins.jpg",
            partial(_read, "eileen_collins", collins),
            author="NASA",
            licence="public domain",
            licence_url=f"{commons}/Template:PD-USGov-NASA",
            source_url="https://flic.kr/p/r9qvLn",
        ),
    )


def _read(name: str, person: FoundPerson, most_bytes: int) -> bytes:
    data = portrait_jpeg(name)
    if len(data) > most_bytes:
        raise TooLarge(f"the photo of {person.name} is larger than the settings allow")
    return data
