"""Data folders for tests."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path


def copy_home(starter_home: Path, home: Path) -> Path:
    """Copies the gallery and the empty store; the cache, which anybody may write, is shared."""
    shutil.copytree(starter_home / "gallery", home / "gallery")
    for name in ("lookalike.db", "secret.key"):
        shutil.copy2(starter_home / name, home / name)
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return home


def make_starter_home(home: Path) -> None:
    """Makes a data folder with the two people that everybody has."""
    from bot.app import open_engine, open_gallery, open_store
    from bot.settings import Settings
    from gallery.add import add
    from gallery.sources.bundled import bundled_portraits

    settings = Settings(home=home)
    with open_gallery(settings) as gallery:
        add(gallery, open_engine(settings), bundled_portraits(), backbones=("dlib",))
        assert gallery.stats().portraits == 2

    async def make_store() -> None:
        async with open_store(settings):
            pass

    asyncio.run(make_store())
