"""What `lookalike gallery verify` finds among errors planted in a gallery of real people.

    python benchmarks/gallery_verify.py DIR            a folder of photos for each person
    python benchmarks/gallery_verify.py DIR --half 1   every second person; the others with --half 0
    python benchmarks/gallery_verify.py --people 10000 made-up people with 5 portraits: time and
                                                       memory of comparing all of them

Of every 15 people one gets a photo of somebody else in place of one of their own, one a photo of
somebody else as well, compressed and cut anew, and one is parted into two names. DIR has wrong
names of its own; what is found besides is counted, and listed for people to judge with --list.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from figures import record
from made_people import MadePeople
from PIL import Image

from bot.app import open_engine
from bot.settings import Settings
from engine.types import Box, Space
from gallery.add import add
from gallery.gallery import Gallery
from gallery.progress import no_progress
from gallery.records import FoundPerson, FoundPortrait, Thumbnail
from gallery.sources.folder import PHOTO_ENDINGS, person_name
from gallery.verify import verify
from gallery.verify.checks import Finding, Kind, owners_of, space_findings
from gallery.verify.faces import face_findings

EVERY = 15


@dataclass
class Planted:
    """Errors put into a gallery, by the name they carry there."""

    wrong: set[str] = field(default_factory=set)
    copied: set[frozenset[str]] = field(default_factory=set)
    parted: set[frozenset[str]] = field(default_factory=set)


def photos_of(root: Path, half: int | None) -> dict[str, list[Path]]:
    """Photos by person, of everybody or every second one."""
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    people = {
        person_name(folder.name): sorted(
            path for path in folder.iterdir() if path.suffix.lower() in PHOTO_ENDINGS
        )
        for folder in folders
    }
    return {
        name: photos
        for number, (name, photos) in enumerate(people.items())
        if half is None or number % 2 == half
    }


def with_errors(people: dict[str, list[Path]]) -> tuple[list[FoundPortrait], Planted]:
    """The people's photos, with errors among them."""
    planted = Planted()
    names = list(people)
    found = [(name, path.read_bytes()) for name in names for path in people[name]]
    photos: dict[str, list[bytes]] = {}
    for name, content in found:
        photos.setdefault(name, []).append(content)
    for number in range(0, len(names) - EVERY + 1, EVERY):
        one, other, copier, source, parted = names[number : number + 5]
        photos[one][0] = photos[other].pop()
        planted.wrong.add(one)
        photos[copier].append(again(photos[source][0]))
        planted.copied.add(frozenset((copier, source)))
        photos[f"{parted} (2)"] = photos[parted][:2]
        photos[parted] = photos[parted][2:]
        planted.parted.add(frozenset((parted, f"{parted} (2)")))
    portraits = [
        FoundPortrait(
            FoundPerson(f"name:{name.casefold()}", name),
            f"{name}/{number}",
            lambda _most, content=content: content,
        )
        for name, contents in photos.items()
        for number, content in enumerate(contents)
    ]
    return portraits, planted


def again(content: bytes) -> bytes:
    """A picture as it comes back from elsewhere: cut, smaller, compressed anew."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    wide, high = image.size
    image = image.crop((wide // 40, high // 50, wide - wide // 30, high - high // 60))
    image = image.resize((round(image.width * 0.8), round(image.height * 0.8)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def planted_run(root: Path, half: int | None, *, list_them: bool) -> dict[str, object]:
    """Builds a gallery with errors, examines it and counts."""
    people, planted = with_errors(photos_of(root, half))
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        engine = open_engine(settings)
        with Gallery.open(settings.gallery_folder) as gallery:
            add(gallery, engine, people, backbones=["dlib"])
            seen = verify(gallery, engine)
    found: dict[Kind, list[Finding]] = {}
    for finding in seen.findings:
        found.setdefault(finding.kind, []).append(finding)
    wrong = [one for one in found.get(Kind.OUTLIER, []) if one.subject]
    mixed = {one.subject.person for one in found.get(Kind.MIXED, []) if one.subject}
    told = {one.subject.person for one in wrong if one.subject}
    copies, parted = (set(map(both, found.get(kind, []))) for kind in (Kind.COPY, Kind.TWO_NAMES))
    if list_them:
        for finding in seen.findings:
            print(finding.kind, finding.subject and finding.subject.person, finding.why)
    return {
        "people": seen.people,
        "portraits": seen.portraits,
        "seconds": round(seen.seconds, 1),
        "wrong_planted": len(planted.wrong),
        "wrong_found": len(planted.wrong & (told | mixed)),
        "wrong_would_be_removed": sum(
            one.remedy is not None
            for one in wrong
            if one.subject and one.subject.person in planted.wrong
        ),
        "other_outliers": len(told - planted.wrong),
        "other_mixed": len(mixed - planted.wrong),
        "copies_planted": len(planted.copied),
        "copies_found": len(planted.copied & copies),
        "other_copies": len(copies - planted.copied),
        "two_names_planted": len(planted.parted),
        "two_names_found": len(planted.parted & parted),
        "other_two_names": len(parted - planted.parted),
        "several_faces": len(found.get(Kind.FACES, [])),
        "peak_mb": peak_mb(),
    }


def made_up_run(count: int, each: int = 5) -> dict[str, object]:
    """Compares made-up people, who have vectors and no pictures."""
    space = Space("dlib", "0" * 64, 1, 128)
    crowd = MadePeople(space.dimensions)
    with tempfile.TemporaryDirectory() as folder, Gallery.open(Path(folder)) as gallery:
        with gallery.transaction() as changes:
            for first in range(0, count, 1000):
                people = min(1000, count - first)
                portraits, landmarks = [], np.ones((5, 2), np.float32)
                for number in range(first, first + people):
                    person = changes.add_person(FoundPerson(f"name:{number}", f"Person {number}"))
                    portraits += [
                        changes.add_portrait(
                            person,
                            FoundPortrait(FoundPerson("x", "x"), "x", lambda _: b""),
                            f"{number:032x}{shot:032x}",
                            Thumbnail(None, 200, 200, landmarks, Box(0, 0, 100, 100)),
                        )
                        for shot in range(each)
                    ]
                vectors = crowd.shots(people, each)
                changes.add_vectors(space, vectors, portraits)
        before_mb = peak_mb()
        began = time.perf_counter()
        everybody = owners_of(gallery)
        found, _ = space_findings(gallery, everybody, no_progress)
        storage_s = time.perf_counter() - began
        began = time.perf_counter()
        unlike = face_findings(gallery, space, everybody, (), no_progress)
        likeness_s = time.perf_counter() - began
    return {
        "people": count,
        "portraits": count * each,
        "storage_s": round(storage_s, 1),
        "comparing_faces_s": round(likeness_s, 1),
        "findings": len(found) + len(unlike),
        "peak_before_mb": before_mb,
        "peak_mb": peak_mb(),
    }


def both(finding: Finding) -> frozenset[str]:
    """The two names of a finding."""
    return frozenset(one.person for one in (finding.subject, finding.other) if one)


def peak_mb() -> int:
    """Most memory this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--people", type=int)
    parser.add_argument("--half", type=int, choices=(0, 1))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--record", action="store_true", help="Keep the figures.")
    options = parser.parse_args()
    if options.people is not None:
        section, figures = "gallery_verify_scale", made_up_run(options.people)
    elif options.folder is not None:
        section = "gallery_verify"
        figures = planted_run(options.folder, options.half, list_them=options.list)
    else:
        parser.error("a folder of people, or --people")
    for name, value in figures.items():
        print(f"{name:24} {value}")
    if options.record:
        record(section, figures)


if __name__ == "__main__":
    main()
