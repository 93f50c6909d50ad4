"""Starts the embedded chain as a separate process, and ends it.

In: a state folder and a block time. Out: an endpoint for any client.
Knows nothing of the chain's implementation: it runs `python -m raytensor.devnet`.
"""

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

    state         folder of the chain's state; an existing chain is continued.
    block_time_s  seconds between blocks; None: blocks are made only by the RPC method dev_newBlock.
    log           file for the standard error of the process.
    finality_lag  blocks between the best and the finalized one.

    The process ends with `close`, and also when this process dies: it watches its standard input.
    Raises `ChainUnavailable` if it does not serve within `timeout_s`.
    """

    def __init__(
        self, state: Path, block_time_s: float | None, log: Path, timeout_s: float = 30.0, *, finality_lag: int = 0
    ) -> None:
        block_time = "manual" if block_time_s is None else f"{block_time_s:g}"
        command = [sys.executable, "-m", "raytensor.devnet", "--port", "0", "--block-time", block_time]
        command += ["--state", str(state), "--exit-with-stdin", "--quiet", "--finality-lag", str(finality_lag)]
        path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in the terminal reaches only the job
            )
        self.endpoint = self._ready(timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process, which keeps its last block: close its input, after 3 s terminate it, after 6 s kill it."""
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
        output, lines = self._process.stdout, []
        assert output is not None
        reader = threading.Thread(target=lambda: lines.append(output.readline()), daemon=True)
        reader.start()
        reader.join(timeout_s)
        if not lines or not lines[0].strip():
            self._process.kill()
            self.close()
            tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise ChainUnavailable(
                f"the embedded chain did not start within {timeout_s:.0f} s; its last output: "
                f"{' | '.join(tail) or 'none'} (see {self._log})"
            )
        return str(json.loads(lines[0])["endpoint"])
