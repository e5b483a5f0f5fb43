"""The words of scores: they rise with the score, in every language."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bot.text import WORDS, Wording, word_key
from gallery.scores import ANCHORS, SAME_PERSON_SCORE

wording = Wording.load()


def test_the_ladder_rises() -> None:
    levels = [least for least, _ in WORDS]

    assert all(higher > lower for higher, lower in pairwise(levels))
    assert levels[-1] == float("-inf")
    assert word_key(99.0, ["covered"]) == word_key(50.0)
    assert word_key(40.0, ["covered"]) == word_key(40.0)
    assert word_key(29.9) == "word.hardly"
    assert word_key(30.0) == "word.hint"
    assert word_key(93.0) == word_key(SAME_PERSON_SCORE) == "word.same"
    assert word_key(max(score for score, _ in ANCHORS)) == "word.twins"


@pytest.mark.parametrize("language", ["en", "es", "ru", "hi"])
def test_every_step_has_its_own_words(language: str) -> None:
    words = [wording.text(key, language) for _, key in WORDS]

    assert len(set(words)) == len(WORDS)
    assert not set(words) & {key for _, key in WORDS}
    if language != "en":
        assert not set(words) & {wording.text(key, "en") for _, key in WORDS}
