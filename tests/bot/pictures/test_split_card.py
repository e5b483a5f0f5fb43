"""The split card as a person sees it: one face above what the other card says, too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_card import (
    COLLINS,
    HOPPER,
    bar_end,
    collins,
    entry,
    face_at,
    hopper,
    pixels_of,
)

from bot.pictures.card import CardEntry, draw_card
from bot.pictures.split import split_face
from bot.values import Limits
from engine.types import Photo

__all__ = ["collins", "hopper"]  # fixtures


def entries(hopper: Photo, collins: Photo, count: int) -> list[CardEntry]:
    one, other = entry(hopper, HOPPER), entry(collins, COLLINS, "Eileen Collins", 41.0)
    return [(one, other)[at % 2] for at in range(count)]


def test_it_says_what_the_other_card_says(hopper: Photo, collins: Photo) -> None:
    """Name, score, bar, word and credit look the same, pixel by pixel but for JPEG's losses."""
    entry_ = entry(hopper, HOPPER)
    split = pixels_of(draw_card(collins, [face_at(COLLINS)], [entry_], split=True))
    side = pixels_of(draw_card(collins, [face_at(COLLINS)], [entry_]))
    below = side.shape[0] - 640 - 8
    assert np.abs(split[-below:] - side[-below:]).mean() < 1.5
    assert bar_end(split)[1] == pytest.approx(bar_end(side)[1], abs=2)


def test_the_face_above_is_the_split_one(hopper: Photo, collins: Photo) -> None:
    """The sender's half at the left."""
    card = pixels_of(draw_card(collins, [face_at(COLLINS)], [entry(hopper, HOPPER)], split=True))
    face = split_face((collins.pixels, COLLINS), (hopper.pixels, HOPPER), (1080, 960))
    assert np.abs(card[:950] - face[:950]).mean() < 4


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12])
def test_every_card_is_within_all_limits(hopper: Photo, collins: Photo, count: int) -> None:
    """Further matches are smaller faces of the sender and each of them, with their ranks."""
    found = entries(hopper, collins, count)
    picture = draw_card(collins, [face_at(COLLINS)], found, split=True)
    assert len(picture.jpeg) <= 250_000
    assert picture.width_px + picture.height_px <= Limits().picture_width_plus_height_px
    assert picture.alt.count("Grace Hopper") == (min(count, 10) + 1) // 2
    pixels_of(picture)


def test_further_matches_are_split_too(hopper: Photo, collins: Photo) -> None:
    """All but those turned too far aside, whose portrait is shown."""
    best, other = entries(hopper, collins, 2)
    aside = other.portrait_landmarks.copy()
    aside[2, 0] -= 30
    profile = dataclasses.replace(other, portrait_landmarks=aside)
    sheets = [
        pixels_of(draw_card(hopper, [face_at(HOPPER)], [best, second], split=True))
        for second in (other, profile)
    ]
    side = pixels_of(draw_card(hopper, [face_at(HOPPER)], [best, profile]))
    tiles = [sheet[-180:-10, 60:190] for sheet in (*sheets, side)]
    assert np.abs(tiles[0] - tiles[1]).mean() > 10
    assert np.abs(tiles[1] - tiles[2]).mean() < 3


def test_several_faces_are_numbered_above(hopper: Photo, collins: Photo) -> None:
    """As on the other card."""
    faces = [face_at(HOPPER), face_at(HOPPER + 3)]
    picture = draw_card(hopper, faces, [entry(collins, COLLINS)], answered=1, split=True)
    alone = draw_card(hopper, faces[1:], [entry(collins, COLLINS)], split=True)
    assert picture.height_px > alone.height_px + 200
    with pytest.raises(IndexError):
        draw_card(hopper, faces, [entry(collins, COLLINS)], answered=2, split=True)


def test_a_card_of_nobody_is_refused(hopper: Photo) -> None:
    """There is always a best match."""
    with pytest.raises(ValueError, match="at least 1"):
        draw_card(hopper, [face_at(HOPPER)], [], split=True)


def test_a_silhouette_is_shown_as_it_is(hopper: Photo, collins: Photo) -> None:
    """A gallery may lack its photos; half a silhouette is nobody's face."""
    best, other = entries(hopper, collins, 2)
    hidden = dataclasses.replace(other, silhouette=True)
    sheets = [
        pixels_of(draw_card(hopper, [face_at(HOPPER)], [best, second], split=True))
        for second in (other, hidden)
    ]
    side = pixels_of(draw_card(hopper, [face_at(HOPPER)], [best, other]))
    tiles = [sheet[-180:-10, 60:190] for sheet in (*sheets, side)]
    assert np.abs(tiles[0] - tiles[2]).mean() > 10
    assert np.abs(tiles[1] - tiles[2]).mean() < 3
