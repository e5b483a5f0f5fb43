"""What was found once is not found again; ``make fuzz`` looks for more."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS, Chat
from run import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str, own_home: Path) -> None:
    Chat.home = own_home
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for seed in seeds:
        target.run(seed)


def test_every_target_is_tried() -> None:
    assert set(NAMES) == set(TARGETS)
