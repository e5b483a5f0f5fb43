"""Who takes part in /twins: for how long, how many, and which pair is most alike."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.memory import MOST_TWINS, Member, TwinsGroups, closest_pairs, is_twin
from bot.process_memory import Memory
from engine.types import Embedding, Space

SPACE = Space("dlib", "0" * 64, 1, 8)
OTHER = Space("resnet", "1" * 64, 1, 8)
DAY_S = 86_400.0


class Clock:
    """Unix time as the test wants it."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def groups(clock: Clock) -> TwinsGroups:
    return TwinsGroups(Memory(MOST_TWINS, is_twin, clock), clock=clock)


def face(seed: int, space: Space = SPACE) -> Embedding:
    """Some direction."""
    vector = np.random.default_rng(seed).normal(size=space.dimensions)
    return Embedding((vector / np.linalg.norm(vector)).astype(np.float32), space)


def taking_part(known: Memory) -> int:
    """How many there are in all chats."""
    return sum(is_twin(value) for *_, value in known._kept.values())


async def sends(groups: TwinsGroups, room: bytes, user: bytes, embedding: Embedding) -> bool:
    """A photo of somebody who may take part arrives and is looked at."""
    member = await groups.member(room, user)
    return member is not None and await groups.count(room, user, member, embedding, "Ann")


async def test_nobody_is_in_who_did_not_ask(groups: TwinsGroups) -> None:
    assert not await sends(groups, b"room", b"ann", face(1))
    assert await groups.members(b"room") == {}
    assert groups.memory._kept == {}


async def test_the_newest_photo_replaces_the_older_one(groups: TwinsGroups) -> None:
    await groups.join(b"room", b"ann", "Ann")
    for seed in (1, 2):
        assert await sends(groups, b"room", b"ann", face(seed))
    (member,) = (await groups.members(b"room")).values()
    assert member.embedding is not None
    np.testing.assert_array_equal(member.embedding.vector, face(2).vector)


async def test_joining_again_keeps_the_photo_and_the_time(
    groups: TwinsGroups, clock: Clock
) -> None:
    await groups.join(b"room", b"ann", "Ann")
    assert await sends(groups, b"room", b"ann", face(1))
    before = await groups.member(b"room", b"ann")
    assert before is not None
    clock.now_s += 3600
    await groups.join(b"room", b"ann", "Ann")
    after = await groups.member(b"room", b"ann")
    assert after is not None
    assert after.dumped() == before.dumped()


async def test_a_day_after_the_newest_photo_all_is_gone(groups: TwinsGroups, clock: Clock) -> None:
    await groups.join(b"room", b"ann", "Ann")
    await groups.join(b"room", b"ben", "Ben")
    clock.now_s += DAY_S / 2
    assert await sends(groups, b"room", b"ann", face(1))
    assert await groups.until_s(b"ann") == (clock.now_s + DAY_S,)
    clock.now_s += DAY_S / 2
    assert set(await groups.members(b"room")) == {b"ann"}
    clock.now_s += DAY_S / 2 - 1
    assert set(await groups.members(b"room")) == {b"ann"}
    clock.now_s += 1
    groups.memory.tidy()
    assert not groups.memory._kept


async def test_a_clock_that_was_set_back_keeps_nobody_longer(
    groups: TwinsGroups, clock: Clock
) -> None:
    await groups.join(b"room", b"ann", "Ann")
    clock.now_s -= 1
    assert await groups.members(b"room") == {}


async def test_leaving_is_at_once_and_for_one_chat_forgetting_for_all(groups: TwinsGroups) -> None:
    for room in (b"one", b"two"):
        await groups.join(room, b"ann", "Ann")
        await groups.join(room, b"ben", "Ben")
    assert await groups.leave(b"one", b"ann")
    assert not await groups.leave(b"one", b"ann")
    assert await groups.member(b"two", b"ann")
    await groups.forget(b"ben")
    assert [len(await groups.members(room)) for room in (b"one", b"two")] == [0, 1]
    assert not [name for name in groups.memory._kept if b"ben".hex() in name]


@pytest.mark.parametrize("returns", [False, True])
async def test_a_photo_that_was_still_looked_at_when_somebody_left_does_not_count(
    groups: TwinsGroups, clock: Clock, *, returns: bool
) -> None:
    """Not even if they have joined again since."""
    await groups.join(b"room", b"ann", "Ann")
    member = await groups.member(b"room", b"ann")
    assert member is not None
    await groups.leave(b"room", b"ann")
    if returns:
        clock.now_s += 0.001
        await groups.join(b"room", b"ann", "Ann")
    assert not await groups.count(b"room", b"ann", member, face(1), "Ann")
    assert all(one.embedding is None for one in (await groups.members(b"room")).values())


async def test_memory_is_bounded(clock: Clock) -> None:
    """A full chat takes nobody more; in all chats those go who were asked about longest ago."""
    known = Memory(5, is_twin, clock)
    groups = TwinsGroups(known, most_in_a_chat=3, clock=clock)
    for user in range(3):
        await groups.join(b"full", bytes([user]), "Ann")
    assert not await groups.join(b"full", b"late", "Late")
    assert await groups.join(b"full", bytes([0]), "Ann")  # who is in may say so again
    for number in range(20):
        clock.now_s += 1
        await groups.join(b"room %d" % number, b"ben", "Ben")
        assert taking_part(known) <= 5
    assert await groups.members(b"full") == {}
    assert taking_part(known) == 5
    assert await groups.member(b"room 19", b"ben")


def test_nothing_of_a_taker_shows_in_a_repr() -> None:
    member = Member("Ann", 1.0, face(1))
    assert "Ann" not in repr(member)
    assert "Embedding" not in repr(member)


members = st.dictionaries(
    st.binary(min_size=1, max_size=3),
    st.builds(face, st.integers(0, 12), st.sampled_from([SPACE, OTHER])),
    max_size=9,
)


@given(members, st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_pair_is_the_most_alike_of_all_in_whatever_order_they_came(
    embeddings: dict[bytes, Embedding], chance: random.Random, most: int
) -> None:
    """By comparing everybody with everybody of the same space; nobody with themselves."""
    shuffled = list(embeddings.items())
    chance.shuffle(shuffled)
    pairs = closest_pairs(dict(shuffled), most)
    assert pairs == closest_pairs(embeddings, most)
    for space in (SPACE, OTHER):
        cosines = sorted(
            (
                one.cosine(other)
                for one, other in itertools.combinations(embeddings.values(), 2)
                if one.space == other.space == space
            ),
            reverse=True,
        )
        found = [pair for pair in pairs if pair.space == space]
        assert [pair.cosine for pair in found] == pytest.approx(cosines[:most], abs=1e-6)
        for pair in found:
            assert pair.first < pair.second
            one, other = embeddings[pair.first], embeddings[pair.second]
            assert pair.cosine == pytest.approx(one.cosine(other), abs=1e-6)


def test_a_hundred_who_take_part_are_compared_at_a_glance() -> None:
    """Equal pairs by their keys, so that asking twice gives the same."""
    same = {bytes([user]): face(1) for user in range(100)}
    pairs = closest_pairs(same, 3)
    assert [(pair.first[0], pair.second[0]) for pair in pairs] == [(0, 1), (0, 2), (0, 3)]
