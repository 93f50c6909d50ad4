"""Starts the embedded chain as a process of its own, and ends it.

In: a state folder and a block time. Out: an endpoint that any client can use.
Knows nothing of the chain's inside: it starts the command that a person would start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from raytensor.errors import ChainUnavailable

PACKAGE_PARENT = Path(__file__).resolve().parent.parent.parent


class EmbeddedChain:
    """The embedded chain on a free loopback port.

    state         folder of the chain's state; an earlier one is gone on from.
    block_time_s  seconds between blocks.
    log           file that takes what the process says.
    finality_lag  blocks between the best and the final one.

    The process ends when this object is closed, and also when this process dies: it watches its standard input.
    Raises `ChainUnavailable` when it does not serve within `timeout_s`.
    """

    def __init__(
        self, state: Path, block_time_s: float, log: Path, timeout_s: float = 30.0, *, finality_lag: int = 0
    ) -> None:
        command = [sys.executable, "-m", "raytensor.devnet", "--port", "0", "--block-time", f"{block_time_s:g}"]
        command += ["--state", str(state), "--exit-with-stdin", "--quiet", "--finality-lag", str(finality_lag)]
        path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        self._log = log
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in the terminal is the run's to handle, not the chain's
            )
        self.endpoint = self._ready(timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process; it keeps its last block. Harder after each 3 s that it does not end."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            try:
                self._process.wait(timeout=3)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._process.stdout:
            self._process.stdout.close()

    def _ready(self, timeout_s: float) -> str:
        assert self._process.stdout is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.append(self._process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(timeout_s)
        if not lines or not lines[0].strip():
            self._process.kill()
            self.close()
            tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ChainUnavailable(
                f"the embedded chain did not start within {timeout_s:.0f} s; its last words: {' | '.join(tail) or 'none'} (see {self._log})"
            )
        return str(json.loads(lines[0])["endpoint"])
