"""Two faces lit alike: where a tone is measured, and what becomes of a picture."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_card import COLLINS, HOPPER

from bot.pictures.split import Tone, between, is_grey, skin_tone, softened, toned


def pixels_of(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def grey_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def detail(pixels: NDArray[np.uint8]) -> float:
    return float(cv2.Laplacian(pixels, cv2.CV_64F).var())


def test_one_skin_is_brought_to_another(hopper_jpeg: bytes, collins_jpeg: bytes) -> None:
    """Its mean light and colours are the other's afterwards."""
    hopper, collins = pixels_of(hopper_jpeg), pixels_of(collins_jpeg)
    tone, wanted = skin_tone(hopper, HOPPER), skin_tone(collins, COLLINS)
    assert max(abs(a - b) for a, b in zip(tone[0], wanted[0], strict=True)) > 8
    found = skin_tone(toned(hopper, tone, wanted), HOPPER)
    assert found[0] == pytest.approx(wanted[0], abs=4)


def test_halfway_is_between(hopper_jpeg: bytes, collins_jpeg: bytes) -> None:
    """And nothing of the way is the first itself, which leaves a picture as it is."""
    hopper, collins = pixels_of(hopper_jpeg), pixels_of(collins_jpeg)
    tone, other = skin_tone(hopper, HOPPER), skin_tone(collins, COLLINS)
    middle = between(tone, other, 0.5)
    assert middle[0] == pytest.approx((tone[0] + other[0]) / 2)
    assert np.array_equal(between(tone, other, 0.0), tone)
    same = toned(hopper, tone, tone).astype(int)
    assert np.abs(same - hopper).mean() < 4


def test_beside_a_grey_face_a_coloured_one_becomes_grey(
    hopper_jpeg: bytes, collins_jpeg: bytes
) -> None:
    """One half in colours and one without would be two pictures."""
    hopper, collins = grey_of(pixels_of(hopper_jpeg)), pixels_of(collins_jpeg)
    tone, other = skin_tone(hopper, HOPPER), skin_tone(collins, COLLINS)
    assert is_grey(tone)
    assert not is_grey(other)
    wanted = between(tone, other, 0.35)
    assert is_grey(wanted)
    assert np.ptp(toned(collins, other, wanted).astype(int), axis=2).max() <= 4


tones = st.tuples(
    st.tuples(st.floats(0, 255), st.floats(100, 160), st.floats(100, 160)),
    st.tuples(st.floats(0, 90), st.floats(0, 30), st.floats(0, 30)),
).map(np.array)


@settings(deadline=None)
@given(tones, tones)
def test_light_stays_in_its_order(tone: Tone, wanted: Tone) -> None:
    """Whatever is measured: black stays black, white stays white, lighter stays lighter."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    plain = np.array([(wanted[0, 0], 128, 128), (wanted[1, 0], 0, 0)])
    result = toned(ramp, tone, plain)
    light = cv2.cvtColor(result, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert np.diff(light).min() >= -2
    assert light[0] <= 3
    assert light[-1] >= 250


def test_a_face_outside_the_frame_has_some_tone() -> None:
    """A detector may be wrong; then the picture as a whole counts."""
    far = np.full((5, 2), 1e6) + np.eye(5, 2)
    tone = skin_tone(np.full((40, 40, 3), 99, np.uint8), far)
    assert tone[0, 0] == pytest.approx(
        cv2.cvtColor(np.full((1, 1, 3), 99, np.uint8), cv2.COLOR_RGB2LAB)[0, 0, 0], abs=1
    )


def test_only_what_is_much_sharper_is_softened(collins_jpeg: bytes) -> None:
    """Beside an enlarged face a sharp one would show which is which."""
    collins = pixels_of(collins_jpeg)
    assert softened(collins, 1.0, 1.5) is collins
    assert softened(collins, 4.0, 0.25) is collins
    assert detail(softened(collins, 1.0, 6.0)) < 0.5 * detail(collins)
