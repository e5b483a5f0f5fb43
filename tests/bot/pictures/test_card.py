"""The card as a person sees it: pixels of the picture, not calls of the library."""

from __future__ import annotations

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_framing import placed
from test_script_runs import NAMES

from bot.pictures.card import (
    CardEntry,
    draw_card,
    draw_comparison,
)
from bot.pictures.sheet import BACKGROUND, TRACK, Sheet, draw_numbered, score_colour
from bot.pictures.text import Block
from bot.values import Limits, Picture
from engine.types import Box, Face, Photo

# MTCNN's points in the two photos.
HOPPER = np.array([(220, 190), (308, 186), (268, 237), (232, 277), (304, 273)], np.float32)
COLLINS = np.array([(204, 100), (245, 102), (224, 126), (202, 139), (244, 140)], np.float32)


def photo_of(jpeg: bytes) -> Photo:
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]), "JPEG")


def plain_photo(width: int, height: int, grey: int = 120) -> Photo:
    return Photo(np.full((height, width, 3), grey, np.uint8), (width, height), "PNG")


def face_at(landmarks: NDArray[np.float32]) -> Face:
    x, y = (float(value) for value in landmarks[:2].mean(axis=0))
    apart = max(float(np.linalg.norm(landmarks[1] - landmarks[0])), 1.0)
    return Face(Box(x - apart, y - apart, 2 * apart, 2.6 * apart), landmarks, 0.99)


def pixels_of(picture: Picture) -> NDArray[np.int64]:
    image = Image.open(io.BytesIO(picture.jpeg))
    assert image.format == "JPEG"
    assert image.size == (picture.width_px, picture.height_px)
    return np.asarray(image.convert("RGB"), np.int64)


@pytest.fixture(scope="module")
def hopper(hopper_jpeg: bytes) -> Photo:
    return photo_of(hopper_jpeg)


@pytest.fixture(scope="module")
def collins(collins_jpeg: bytes) -> Photo:
    return photo_of(collins_jpeg)


def entry(
    photo: Photo, landmarks: NDArray[np.float32], name: str = "Grace Hopper", score: float = 57.0
) -> CardEntry:
    return CardEntry(
        portrait=photo.pixels,
        portrait_landmarks=landmarks,
        name=name,
        score=score,
        word="a strong likeness",
        credit="James S. Davis, U.S. Navy, public domain",
    )


def with_numbers(photo: Photo, faces: list[Face]) -> Picture:
    """The photo alone, its faces numbered."""
    sheet = Sheet(1080)
    return sheet.picture(draw_numbered(sheet, photo, faces, highest_px=1350), "")


def bar_end(card: NDArray[np.int64]) -> tuple[int, int]:
    """Row in the middle of the bar and the column at which its filled part ends."""
    is_track = np.abs(card - TRACK).max(axis=2) < 8
    rows = np.flatnonzero(is_track.sum(axis=1) > 30)
    row = int(np.median(rows))
    filled = np.flatnonzero(np.abs(card[row, 60:1020] - TRACK).max(axis=1) > 40)
    return row, 60 + int(filled[-1]) if len(filled) else 66


def test_text_mixes_with_what_is_below_it() -> None:
    """On an even ground as on one where a pixel differs: rounded to the nearest, 0 to 255."""
    mask = np.arange(2048, dtype=np.uint32).astype(np.uint8).reshape(32, 64)
    sheet = Sheet(64)
    sheet.block(Block(mask, ("x",), 10, 10), 0, 0, (250, 7, 128))
    even = np.empty((32, 64, 3), np.uint8)
    even[:] = BACKGROUND
    uneven = even.copy()
    uneven[5, 5] = 200
    shares = mask[..., None] / 255
    for paper in (even, uneven):
        wanted = np.round(paper * (1 - shares) + np.array((250, 7, 128)) * shares)
        sheet.draw_on(paper)
        assert np.array_equal(paper, wanted)


def test_card_is_fit_for_a_chat(hopper: Photo, collins: Photo) -> None:
    """Size, weight, proportions and words of the single card."""
    card = draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER)])
    assert 1000 <= card.width_px <= 1200
    assert 0.7 < card.height_px / card.width_px < 1.0
    assert 60_000 < len(card.jpeg) <= 250_000
    assert card.width_px + card.height_px <= Limits().picture_width_plus_height_px
    assert card.alt == "Grace Hopper: 57, a strong likeness"
    assert pixels_of(card).std() > 40


def discs(size: float, degrees: float) -> tuple[Photo, NDArray[np.float32]]:
    landmarks = placed(size, degrees, 4 * size, 4 * size)
    pixels = np.full((int(9 * size), int(8 * size), 3), 100, np.uint8)
    for x, y in landmarks[:2]:
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(pixels, centre, round(16 * size / 8), (255, 255, 255), -1, cv2.LINE_AA, 4)
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]), "PNG"), landmarks


@pytest.mark.parametrize(("size", "degrees"), [(12, 0), (40, 20), (90, -35), (200, 8)])
def test_eyes_stand_side_by_side(size: float, degrees: float) -> None:
    """Both pairs of eyes are found in the picture at one height, level, equally far apart."""
    probe, marks = discs(size, degrees)
    other, other_marks = discs(60, 12)
    card = pixels_of(draw_card(probe, [face_at(marks)], [entry(other, other_marks)]))
    weight = np.clip(card[:600, :, 1] - 170, 0, None).astype(np.uint8)
    count, _, stats, centres = cv2.connectedComponentsWithStats((weight > 0).astype(np.uint8))
    eyes = sorted(
        (float(centres[at][0]), float(centres[at][1]))
        for at in range(1, count)
        if stats[at][cv2.CC_STAT_AREA] > 100
    )
    assert len(eyes) == 4
    heights = [y for _, y in eyes]
    assert max(heights) - min(heights) < 1.5
    assert eyes[1][0] - eyes[0][0] == pytest.approx(eyes[3][0] - eyes[2][0], abs=1.5)


@pytest.mark.parametrize("score", [0.0, 12.5, 50.0, 77.0, 95.0])
def test_bar_is_as_long_as_the_score(hopper: Photo, collins: Photo, score: float) -> None:
    """0 at the left end, 100 at the right one, in the colour of the score."""
    match = entry(hopper, HOPPER, score=score)
    card = pixels_of(draw_card(collins, [face_at(COLLINS)], [match]))
    row, end = bar_end(card)
    assert end == pytest.approx(44 + 22 + (1080 - 88 - 22) * score / 100, abs=7)
    if score:
        assert np.abs(card[row, end - 11] - score_colour(score)).max() < 40


def test_score_colours_differ_for_every_eye() -> None:
    """Each score is lighter than a lower one, and every one is readable on the background."""

    def luminance(colour: tuple[int, int, int]) -> float:  # WCAG 2.2, relative luminance
        parts = np.array(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    steps = [luminance(score_colour(score)) for score in range(0, 101, 5)]
    assert all(low < high for low, high in pairwise(steps))
    contrasts = [(step + 0.05) / (luminance(BACKGROUND) + 0.05) for step in steps]
    assert min(contrasts) >= 4.5


def test_words_are_legible_on_a_phone(hopper: Photo, collins: Photo) -> None:
    """At 320 px the name and digits are 13 px high at least, those of the licence 6."""
    card = draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER)])
    pixels, scale = pixels_of(card), 320 / 1080
    name = pixels[650:750, 44:500].min(axis=2) > 180
    number = np.abs(pixels[660:, 930:1036] - score_colour(57)).max(axis=2) < 60
    credit = pixels[-70:, 80:600].min(axis=2) > 110
    highest = (np.flatnonzero(part[:200].any(axis=1)) for part in (name, number[:170], credit))
    heights = [scale * (rows.max() - rows.min()) for rows in highest]
    assert [high >= least for high, least in zip(heights, (13, 13, 6), strict=True)] == [True] * 3


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_licence_is_never_cut(
    hopper: Photo, collins: Photo, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the author's name is."""
    drawn: list[str] = []

    def noted(sheet: Sheet, block: Block, *where: Any) -> None:
        drawn.append(" ".join(block.lines))
        whole(sheet, block, *where)

    whole = Sheet.block
    monkeypatch.setattr(Sheet, "block", noted)
    match = dataclasses.replace(
        entry(hopper, HOPPER), credit="Photograph by the Press Office of " * 6 + ", CC BY-SA 4.0"
    )
    draw_card(collins, [face_at(COLLINS)], [match] * count)
    said = [text for text in drawn if "Photo" in text]
    assert len(said) == count
    assert all(text.endswith("…, CC BY-SA 4.0") for text in said)


def test_only_the_name_changes_with_the_name(hopper: Photo, collins: Photo) -> None:
    """Another name leaves the faces as they are and changes the text."""
    one, two = (
        pixels_of(draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER, name)]))
        for name in ("Grace Hopper", "Grace Kelly")
    )
    different = np.abs(one - two).max(axis=2) > 30
    assert not different[:630].any()
    assert different[640:].any()


@pytest.mark.parametrize("script", NAMES)
def test_every_name_fits(hopper: Photo, collins: Photo, script: str) -> None:
    """Names of every script, as the best match and as further ones, within the limits."""
    name = NAMES[script]
    entries = [entry(hopper, HOPPER, name, 50), entry(collins, COLLINS, name * 3, 40)]
    card = draw_card(collins, [face_at(COLLINS)], entries)
    pixels = pixels_of(card)
    assert len(card.jpeg) <= 250_000
    frame = np.concatenate([pixels[525:, -20:].ravel(), pixels[525:740, :20].ravel()])
    assert frame.max() < 60  # the margins stay empty: no text runs out of the card


def test_three_matches_share_one_picture(hopper: Photo, collins: Photo) -> None:
    """The first side by side with the probe, the others below, each with its rank and bar."""
    two, three = (
        [
            entry(hopper, HOPPER, "First", 60),
            entry(collins, COLLINS, "Second", 40),
            entry(hopper, HOPPER, "Third", 20),
        ][:count]
        for count in (2, 3)
    )
    short = draw_card(collins, [face_at(COLLINS)], two)
    long = draw_card(collins, [face_at(COLLINS)], three)
    assert long.height_px - short.height_px > 150
    assert long.alt.index("First") < long.alt.index("Second") < long.alt.index("Third")
    tracks = np.abs(pixels_of(long) - TRACK).max(axis=2) < 8
    rows = np.flatnonzero(tracks.sum(axis=1) > 200)
    assert 1 + np.count_nonzero(np.diff(rows) > 20) == 3


def test_several_matches_carry_their_ranks() -> None:
    """A tab on the first portrait and on the others; none where there is one match."""
    grey = plain_photo(400, 400, 60)
    marks = placed(60, 0, 200, 180)
    match = entry(grey, marks)
    single, several = (
        pixels_of(draw_card(grey, [face_at(marks)], [match] * count)).min(axis=2) > 200
        for count in (1, 3)
    )
    assert not single[:500, 540:].any()
    assert several[:60, 1000:].sum() > 200
    rows = np.flatnonzero(several[750:, 140:196].sum(axis=1) > 3)
    assert 1 + np.count_nonzero(np.diff(rows) > 60) == 2


@pytest.mark.parametrize("count", [2, 5, 6, 10])
def test_no_row_has_a_hole(hopper: Photo, collins: Photo, count: int) -> None:
    """There is a portrait or text at both sides of the sheet down to its end."""
    card = pixels_of(draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER)] * count))
    for part in (card[-150:, :540], card[-150:, 540:]):
        assert (np.abs(part - BACKGROUND).max(axis=2) > 60).mean() > 0.04


def test_ten_matches_fit_a_picture(hopper: Photo, collins: Photo) -> None:
    """As many as /top allows: all scores are there, and the picture stays easy to send."""
    entries = [entry(hopper, HOPPER, f"Person {at}", 60 - 4 * at) for at in range(10)]
    card = draw_card(collins, [face_at(COLLINS)], entries)
    assert len(card.jpeg) <= 250_000
    assert card.height_px / card.width_px < 1.6
    assert card.alt.count(": ") == 10
    assert draw_card(collins, [face_at(COLLINS)], entries * 10) == card


def test_faces_are_with_numbers(hopper: Photo) -> None:
    """A frame and a badge at every box, and nothing elsewhere."""
    boxes = [Box(60, 80, 90, 110), Box(300, 240, 100, 120), Box(380, 20, 60, 70)]
    faces = [Face(box, HOPPER, 0.9) for box in boxes]
    bare, numbered = pixels_of(with_numbers(hopper, [])), pixels_of(with_numbers(hopper, faces))
    assert bare.shape == numbered.shape
    changed = np.abs(bare - numbered).max(axis=2) > 60
    scale = 1080 / hopper.width_px
    for box in boxes:
        x, y, w, h = (round(scale * value) for value in (box.x, box.y, box.w, box.h))
        for corner_x, corner_y in ((x, y), (x + w, y), (x, y + h), (x + w, y + h)):
            near = changed[max(0, corner_y - 8) : corner_y + 8, corner_x - 8 : corner_x + 8]
            assert near.any()
        assert not changed[y + h // 3 : y + 2 * h // 3, x + w // 3 : x + 2 * w // 3].any()
    assert changed.mean() < 0.05


@pytest.mark.parametrize("count", [24, 150])
def test_everybody_in_a_crowd_has_a_number(count: int) -> None:
    """A frame and a badge for each, which leave the largest face in view."""
    grey = plain_photo(1080, 700, 120)
    places = [(x, y) for y in range(20, 640, 62) for x in range(20, 1000, 48)]
    around = [(x, y) for x, y in places if not (330 < x < 630 and 170 < y < 520)][: count - 1]
    boxes = [Box(400, 250, 200, 240), *(Box(x, y, 44, 56) for x, y in around)]
    faces = [Face(box, HOPPER, 0.9) for box in boxes]
    marked = np.abs(pixels_of(with_numbers(grey, faces)) - 120).max(axis=2) > 40
    assert not marked[310:430, 450:550].any()
    for box in boxes:
        x, y, w, h = (round(side) for side in (box.x, box.y, box.w, box.h))
        assert marked[max(0, y - 24) : y + h + 24, max(0, x - 24) : x + w + 24].sum() > 400


@pytest.mark.parametrize(("width", "height"), [(20, 1000), (1000, 20), (3, 3), (2000, 1500)])
def test_photos_of_every_shape_can_be_with_numbers(width: int, height: int) -> None:
    """No picture that a platform refuses: neither a ribbon nor a giant."""
    face = Face(Box(width / 4, height / 4, width / 2, height / 2), HOPPER, 0.9)
    picture = with_numbers(plain_photo(width, height), [face])
    assert 0.25 < picture.height_px / picture.width_px <= 1.3


def test_answered_face_is_marked_above_its_card(hopper: Photo, collins: Photo) -> None:
    """Several faces: the photo with numbers and the card of one of them in one picture."""
    faces = [face_at(HOPPER), face_at(HOPPER + 90)]
    pictures = [draw_card(hopper, faces, [entry(collins, COLLINS)], answered=at) for at in (0, 1)]
    alone = draw_card(hopper, [faces[0]], [entry(collins, COLLINS)])
    assert all(picture.height_px > alone.height_px + 200 for picture in pictures)
    assert all(len(picture.jpeg) <= 250_000 for picture in pictures)
    yellow = [
        np.argwhere((p[:646, :, 0] > 220) & (p[:646, :, 1] > 170) & (p[:646, :, 2] < 110))
        for p in map(pixels_of, pictures)
    ]
    first, second = (np.median(points, axis=0) for points in yellow)
    assert second[0] > first[0] + 40
    assert second[1] > first[1] + 40


def test_comparison_has_two_faces_and_a_score(hopper: Photo, collins: Photo) -> None:
    """Two senders' photos side by side, without a name or a credit."""
    one, other = (hopper, face_at(HOPPER)), (collins, face_at(COLLINS))
    picture = draw_comparison(one, other, 27.6, "could be family")
    assert picture.alt == "28, could be family"
    _, end = bar_end(pixels_of(picture))
    assert end == pytest.approx(44 + 22 + 970 * 0.276, abs=7)


def test_noise_stays_below_the_limit() -> None:
    """Photos that hardly compress cost quality, not bytes."""
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    photo = Photo(noise, (900, 900), "PNG")
    marks = placed(130, 0, 450, 400)
    card = draw_card(photo, [face_at(marks)], [entry(photo, marks)])
    assert len(card.jpeg) <= 250_000


def test_same_card_for_everybody(hopper: Photo, collins: Photo) -> None:
    """The same bytes again, and from eight threads at once."""

    def draw(name: str) -> bytes:
        return draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER, name)]).jpeg

    names = [NAMES[script] for script in ("Arabic", "Chinese", "Latin", "Thai")] * 3
    alone = [draw(name) for name in names]
    assert alone[:4] == alone[4:8]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, names)) == alone


coordinates = st.floats(-60, 400, allow_nan=False, width=32)


@settings(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 320), st.integers(1, 320)),
    points=st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5),
    name=st.text(max_size=60),
    word=st.text(max_size=60),
    credit=st.text(max_size=120),
    score=st.floats(0, 100),
    count=st.integers(1, 6),
)
def test_any_photo_and_any_words_make_a_picture(
    size: tuple[int, int],
    points: list[tuple[float, float]],
    name: str,
    word: str,
    credit: str,
    score: float,
    count: int,
) -> None:
    """Whatever a detector finds and a gallery is told, a sendable picture comes out."""
    photo = plain_photo(*size)
    landmarks = np.array(points, np.float32)
    match = CardEntry(photo.pixels, landmarks, name, score, word, credit)
    picture = draw_card(photo, [face_at(landmarks)], [match] * count)
    assert len(picture.jpeg) <= 250_000
    pixels_of(picture)


def test_a_card_without_matches_is_refused(collins: Photo) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        draw_card(collins, [face_at(COLLINS)], [])
