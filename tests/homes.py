"""Data folders for tests."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_home(starter_home: Path, home: Path) -> Path:
    """Copies the gallery and the empty store; the cache, which anybody may write, is shared."""
    shutil.copytree(starter_home / "gallery", home / "gallery")
    for name in ("lookalike.db", "secret.key"):
        shutil.copy2(starter_home / name, home / name)
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return home
