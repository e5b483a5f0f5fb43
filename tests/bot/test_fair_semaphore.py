"""Turns are taken between people, not between requests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.recognizer import FairSemaphore


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_flooder_delays_somebody_else_by_one_turn() -> None:
    gate, order = FairSemaphore(1), []

    async def visit(person: bytes) -> None:
        await gate.enter(person)
        order.append(person)
        await asyncio.sleep(0)
        gate.leave(person)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(visit(b"flooder"))
        await asyncio.sleep(0)
        group.create_task(visit(b"somebody"))
    assert order.index(b"somebody") <= 3  # those who were let in before, and one turn
    assert len(order) == 51


@pytest.mark.parametrize(("places", "kept"), [(3, 1), (12, 8)])
async def test_the_last_places_are_for_those_who_have_none(places: int, kept: int) -> None:
    gate, own = FairSemaphore(places, kept), places - kept
    flood = [asyncio.create_task(gate.enter(b"flooder")) for _ in range(places)]
    await settle()
    assert sum(one.done() for one in flood) == own
    await asyncio.wait_for(gate.enter(b"somebody"), 1)
    gate.leave(b"flooder")
    await settle()
    assert sum(one.done() for one in flood) == own
    gate.leave(b"somebody")
    await settle()
    assert sum(one.done() for one in flood) == own + 1
    for one in flood:
        one.cancel()


async def test_who_gives_up_waiting_takes_no_place() -> None:
    gate = FairSemaphore(1)
    await gate.enter(b"a")
    waiting = [asyncio.create_task(gate.enter(person)) for person in (b"a", b"b", b"b")]
    await settle()
    waiting[1].cancel()
    gate.leave(b"a")
    await settle()
    assert waiting[0].done()
    assert not waiting[2].done()
    gate.leave(b"a")
    await asyncio.wait_for(waiting[2], 1)
    gate.leave(b"b")
    await asyncio.wait_for(gate.enter(b"c"), 1)


async def test_a_place_given_in_the_moment_of_cancellation_is_passed_on() -> None:
    gate = FairSemaphore(1)
    await gate.enter(b"a")
    first, second = (asyncio.create_task(gate.enter(person)) for person in (b"b", b"c"))
    await settle()
    gate.leave(b"a")  # given to b, whose task has not run since
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(second, 1)


@given(
    places=st.integers(1, 4),
    visits=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
)
def test_never_too_many_inside_and_nobody_forgotten(
    places: int, visits: list[tuple[int, bool]]
) -> None:
    """Whatever the people, the order and who gives up."""

    async def play() -> None:
        gate, inside, most, finished = FairSemaphore(places), 0, 0, 0

        async def visit(person: int) -> None:
            nonlocal inside, most, finished
            await gate.enter(bytes([person]))
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0)
            finally:
                inside -= 1
                gate.leave(bytes([person]))
            finished += 1

        tasks = [asyncio.create_task(visit(person)) for person, _ in visits]
        await asyncio.sleep(0)
        for task, (_, gives_up) in zip(tasks, visits, strict=True):
            if gives_up:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= places
        assert finished >= sum(not gives_up for _, gives_up in visits)
        for number in range(places):
            await asyncio.wait_for(gate.enter(b"after%d" % number), 1)

    asyncio.run(play())
