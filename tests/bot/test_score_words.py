"""The words of scores: they rise with the score, in every language."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bot.text import WORDS, Wording, rarity, rated, word_key
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
    levels = (10, 30, 50, 65, 75, 82, 95, 100)
    assert [score for score, _ in ANCHORS] + [SAME_PERSON_SCORE, 100] == list(levels)
    assert [one_in for _, one_in in ANCHORS] == [2, 10, 100, 1_000, 10_000, 100_000]


@pytest.mark.parametrize("language", ["en", "es", "ru", "hi"])
def test_the_rarity_is_a_sentence_that_never_says_one_in_one(language: str) -> None:
    said = []
    for one_in in (1.0, 1.4, 1.6, 17.3, 21.4, 704.0, 999_999.0, 1e10):
        key, count = rarity(one_in)
        said.append(wording.text(key, language, count=count))
    assert said[0] == said[1] != said[2]
    assert len(set(said)) == 7
    assert not any(char.isdecimal() for char in said[0])
    assert "700" in said[5]
    assert "704" not in said[5]
    assert rated(72.4) == "72 ▰▰▰▰▰▰▰▱▱▱"
    assert rated(0, 5) == "0 ▱▱▱▱▱"


@pytest.mark.parametrize("language", ["en", "es", "ru", "hi"])
def test_every_step_has_its_own_words(language: str) -> None:
    words = [wording.text(key, language) for _, key in WORDS]

    assert len(set(words)) == len(WORDS)
    assert not set(words) & {key for _, key in WORDS}
    if language != "en":
        assert not set(words) & {wording.text(key, "en") for _, key in WORDS}
