"""Every kind of card, drawn from the two public-domain portraits that come with the packages.

Into ``artefacts/``, each at full size and as a phone shows it, 320 px wide; with ``--record`` those
of the README are written, too.

    python benchmarks/screens.py --record
"""

from __future__ import annotations

import argparse
import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from morph_speed import Seen, look
from PIL import Image

from bot.pictures.card import CardEntry, draw_card, draw_comparison, draw_family_card
from bot.pictures.morph import GIF, make_morph
from bot.text import LANGUAGES, Wording, word_key
from bot.values import Picture
from engine.types import Box, Face, Photo
from gallery.silhouette import draw_silhouette

ROOT = Path(__file__).parents[1]
PHONE_PX = 320
LONG = "Photograph by the Official Photographer of the United States Navy at Washington"
CREDITS = ("James S. Davis, U.S. Navy, public domain", "NASA, public domain", f"{LONG}, CC BY 2.0")
NAMES = (
    *("Grace Hopper", "Eileen Collins", "Mary Elizabeth Winstead-McGregor of Rocky Mount"),
    *("ऐश्वर्या राय बच्चन", "محمد عبد الوهاب", "梅艳芳", "Ли Бо", "გრიგოლ", "Zoë Saldaña", "Cher"),
)


def entry(seen: Seen, at: int, language: str = "en", *, score: float | None = None) -> CardEntry:
    """The person as the match of that rank."""
    _, photo, face = seen
    score = 78.0 - 4.5 * at if score is None else score
    word = Wording.load().text(word_key(score), language)
    said = (NAMES[at % len(NAMES)], score, word, CREDITS[at % len(CREDITS)])
    return CardEntry(photo.pixels, face.landmarks, *said, face.box)


def crowd(people: Sequence[Seen], count: int) -> tuple[Photo, list[Face]]:
    """A photo of so many faces, side by side and one above the other."""
    columns = int(np.ceil(np.sqrt(2 * count)))
    edge, rows = 1200 // columns, -(-count // columns)
    paper, faces = np.full((rows * edge, columns * edge, 3), 90, np.uint8), []
    for at in range(count):
        _, photo, face = people[at % len(people)]
        scale = edge / max(photo.width_px, photo.height_px)
        small = cv2.resize(photo.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        x, y = at % columns * edge, at // columns * edge
        paper[y : y + small.shape[0], x : x + small.shape[1]] = small
        corner = face.box.x * scale + x, face.box.y * scale + y
        box = Box(*corner, face.box.w * scale, face.box.h * scale)
        landmarks = (face.landmarks * scale + (x, y)).astype(np.float32)
        faces.append(Face(box, landmarks, face.confidence))
    return Photo(paper, (paper.shape[1], paper.shape[0]), "PNG"), faces


def silhouette(seen: Seen, at: int) -> CardEntry:
    """The person as a match whose photo the gallery lacks."""
    drawn, (_, photo, face) = entry(seen, at), seen
    jpeg = draw_silhouette(photo.width_px, photo.height_px, face.landmarks)
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return dataclasses.replace(drawn, portrait=pixels, silhouette=True)


def cards() -> dict[str, Callable[[], Picture]]:
    """Each kind of card by the name of its file."""
    hopper, collins = people = look()
    _, photo, face = collins

    alike = entry(hopper, 0, score=35.0)  # what the model dlib says of these two

    def ranked(count: int) -> list[CardEntry]:
        return [entry(people[at % 2], at) for at in range(count)]

    def family() -> Picture:
        two = entry(hopper, 2), entry(collins, 1)
        return draw_family_card(photo, [face], two, title="Celebrity parents")

    kinds: dict[str, Callable[[], Picture]] = {
        "card": lambda: draw_card(photo, [face], [alike]),
        "split": lambda: draw_card(photo, [face], [alike], split=True),
        "long_names": lambda: draw_card(photo, [face], [entry(hopper, 2)]),
        "silhouette": lambda: draw_card(photo, [face], [silhouette(hopper, 0)]),
        "parents": family,
        "compare": lambda: draw_comparison(hopper[1:], collins[1:], 41.0, "A hint of a likeness"),
    }
    for count in (3, 5, 10):
        kinds[f"top_{count}"] = lambda n=count: draw_card(photo, [face], ranked(n))
        kinds[f"top_{count}_split"] = lambda n=count: draw_card(
            photo, [face], ranked(n), split=True
        )
    for count in (2, 9, 24):
        kinds[f"faces_{count}"] = lambda n=count: draw_card(
            *crowd(people, n), ranked(3 if n == 9 else 1), answered=1
        )
    for tag in LANGUAGES:
        kinds[f"card_{tag}"] = lambda t=tag: draw_card(photo, [face], [entry(hopper, 3, t)])
    return kinds


def read_options(described: str | None) -> argparse.Namespace:
    """The options ``record`` and ``out``, a folder that is there; for the page's pictures, too."""
    parser = argparse.ArgumentParser(description=(described or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help="Write the README's, too.")
    parser.add_argument("--out", type=Path, default=ROOT / "artefacts", help="The folder.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    """Draws them and says where they are."""
    options = read_options(__doc__)
    for name, draw in cards().items():
        picture = draw()
        (options.out / f"{name}.jpg").write_bytes(picture.jpeg)
        size = (PHONE_PX, round(PHONE_PX * picture.height_px / picture.width_px))
        small = Image.open(io.BytesIO(picture.jpeg)).resize(size, Image.Resampling.LANCZOS)
        small.save(options.out / f"{name}_phone.png")
        if options.record and name in {"card", "split"}:
            (ROOT / "docs" / f"{name}.jpg").write_bytes(picture.jpeg)
        print(f"{name:16} {picture.width_px} x {picture.height_px}  {len(picture.jpeg) // 1000} kB")
    hopper, (_, photo, face) = look()
    film = make_morph((photo.pixels, face.landmarks), entry(hopper, 0), alt="", kind=GIF)
    (options.out / "morph.gif").write_bytes(film.content)
    print(f"all in {options.out}")


if __name__ == "__main__":
    main()
