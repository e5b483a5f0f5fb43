"""Looks for bytes that something other than a declared error comes out of, guided by coverage.

``python tests/fuzz/run.py [TARGET...] [--seconds 600]``: one target after the other, each in a
process of its own (atheris, which is libFuzzer; where input has a shape, Hypothesis makes it from
the bytes). What it learned stays in ``artefacts/fuzz/TARGET/corpus``, what it found beside it:
``run.py TARGET --input FILE`` shows that again.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("pictures", "packs", "edited-packs", "pickles", "weights", "settings", "buttons", "words")
NAMES += ("webhook", "updates")
LONGEST_S, MOST_MIB = 30, 1_500  # by the clock, on a machine that may be busy; of the whole process
SEEN = ["engine", "gallery", "bot", "PIL"]  # whose branches guide the search


def search(name: str, seconds: int) -> None:
    """Fuzzes one target in this process, and ends it."""
    import atheris

    logging.disable(logging.WARNING)

    with atheris.instrument_imports(include=SEEN):
        from fuzz_targets import TARGETS

        target, folder = TARGETS[name], ROOT / "artefacts" / "fuzz" / name
        seeds = target.seeds()
        target.run(seeds[-1])  # imports what is imported late
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if len(seed) <= target.most_bytes:
            (folder / "corpus" / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-timeout={LONGEST_S}", f"-rss_limit_mb={MOST_MIB}"]
    options += [f"-artifact_prefix={folder}/", f"-max_len={target.most_bytes}"]
    options += ["-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], target.run)
    atheris.Fuzz()


def main() -> None:
    """Exit status 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[*NAMES, []])
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--input", type=Path, help="try this file alone")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.targets or NAMES
    if options.input is not None:
        from fuzz_targets import TARGETS

        TARGETS[names[0]].run(options.input.read_bytes())
        return
    if options.here:
        search(names[0], options.seconds)
    found = []
    for name in names:
        print(f"== {name}", flush=True)
        share = max(1, options.seconds // len(names))
        command = [sys.executable, __file__, name, "--here", "--seconds", str(share)]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            found.append(name)
    if found:
        sys.exit(f"found something in {', '.join(found)}: see artefacts/fuzz")


if __name__ == "__main__":
    main()
