"""Starts the engine's runtime many times with two threads at its first call; none may hang.

``python benchmarks/starts.py [--count 500]``: prints how many hung (exit 1 if any did).
"""

from __future__ import annotations

import argparse
import subprocess
import sys

START = """
import os, threading
from engine import runtime
both = threading.Barrier(2)
def first():
    runtime._core()
    both.wait()
    import openvino
    openvino.Type.f32.to_dtype()
threads = [threading.Thread(target=first, daemon=True) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join(10) for thread in threads]
os._exit(any(thread.is_alive() for thread in threads))
"""


def main() -> None:
    """Prints the count of starts and of those that hung."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    count = parser.parse_args().count
    hung = sum(
        subprocess.run([sys.executable, "-c", START], check=False).returncode != 0
        for _ in range(count)
    )
    print(f"{count} starts, {hung} hung")
    sys.exit(hung > 0)


if __name__ == "__main__":
    main()
