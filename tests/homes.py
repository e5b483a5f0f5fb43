"""Data folders for tests."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_home(starter_home: Path, home: Path) -> Path:
    """Copies the gallery; the cache, which may be written by anybody, is shared."""
    shutil.copytree(starter_home / "gallery", home / "gallery")
    (home / "cache").symlink_to(starter_home / "cache", target_is_directory=True)
    return home
