"""A real server of Valkey or Redis, on a socket of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis

__all__ = ["ValkeyServer"]

PATIENCE_S = 20.0


class ValkeyServer:
    """Started on construction, in a folder of its own; ``stop`` removes it.

    Raises:
        FileNotFoundError: If neither is installed.
    """

    def __init__(self, *options: str) -> None:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("neither valkey-server nor redis-server is installed")
        # Short, because a socket's path may not have more than about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="lookalike-vk-"))
        self.url = f"unix://{self.folder}/s"
        self._command = [program, "--port", "0", "--unixsocket", f"{self.folder}/s"]
        self._command += ["--dir", str(self.folder), "--maxmemory", "100mb"]
        self._command += ["--maxmemory-policy", "allkeys-lru", *(options or ("--save", ""))]
        self.start()

    def start(self) -> None:
        """Starts it again, empty."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as door:
                door.connect(f"{self.folder}/s")
                door.sendall(b"PING\r\n")
                if door.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.01)
        raise TimeoutError

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._process.kill()
        self._process.wait()
        (self.folder / "s").unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends it, and leaves nothing."""
        self.kill()
        shutil.rmtree(self.folder)

    def ask(self) -> redis.Redis:
        """A connection of the test's own."""
        return redis.Redis(unix_socket_path=f"{self.folder}/s")
