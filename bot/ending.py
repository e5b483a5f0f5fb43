"""How the program ends when a thread can't be asked to."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import NoReturn

__all__ = ["BACKGROUND", "leave"]

# Name of the threads that may be left behind (bot.model_desk.in_daemon_thread).
BACKGROUND = "background"


def leave(code: int) -> NoReturn:
    """Ends the program with that exit code, whatever runs in the background.

    A download that stalls, a network being compiled or a wait for the next line of the terminal
    can't be interrupted. Nothing of the first two counts until it is whole, so leaving them behind
    harms nothing; waiting for them, or letting the interpreter take itself apart around them, does.
    """
    if any(thread.name == BACKGROUND for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
