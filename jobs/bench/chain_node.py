"""The node of the fault benchmark behind proxies: killed, forked, upgraded, slow to finalize.

In: a folder for its state. Out: an endpoint without faults, and endpoints whose proxies follow a rule.
Counts what was done to it. Knows nothing of the writer.
"""

from __future__ import annotations

import json
import os
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chain_blocks import Blocks
from chain_ledger import Recorder
from faults import Fault, FaultProxy

from raytensor.devnet.launch import EmbeddedChain

FINALITY_LAG = 3  # blocks between the best and the final one
WAIT_S = 60.0


class Node:
    """The node behind proxies. It can be killed and started again, and lose its last blocks. Its blocks: `blocks`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.finality_lag = FINALITY_LAG
        self._chain = self._start()
        self.views = [FaultProxy(self._chain.endpoint) for _ in range(3)]
        self.done: Counter[str] = Counter()  # by class of faults
        self.recorder = Recorder(self.quiet)
        self.blocks = Blocks(self.quiet, self.recorder)

    @property
    def quiet(self) -> str:
        """An endpoint without faults."""
        return self.views[0].endpoint

    @property
    def faulty(self) -> list[str]:
        return [proxy.endpoint for proxy in self.views[1:]]

    def _start(self) -> EmbeddedChain:
        return EmbeddedChain(self._folder / "state", None, self._folder / "log", 60.0, finality_lag=self.finality_lag)

    def set_finality_lag(self, blocks: int) -> None:
        """Restart the node with another distance between its best and its final block."""
        self.finality_lag = blocks
        self._restart()

    def wait_until_late(self) -> None:
        """Until the final block is further behind than in the other classes."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            head = int(self._ask("chain_getHeader", [])["number"], 16)
            final = self._ask("chain_getHeader", [self._ask("chain_getFinalizedHead", [])])
            if head - int(final["number"], 16) > FINALITY_LAG:
                self.done["finality lag"] += 1
                return
            time.sleep(0.05)

    def kill(self, dice: random.Random) -> None:
        """At a random moment between two blocks. It lives for some blocks before this returns."""
        self._restart(dice.uniform(0, 0.1))
        self.done["node killed"] += 1
        self.blocks.wait_for(5)

    def _restart(self, pause_s: float = 0.0) -> None:
        """A restarted node knows the state of its last block only: the events of all blocks have been read before."""
        with self.blocks.held():
            time.sleep(pause_s)
            os.kill(self._chain.pid, 9)
            self._chain.close()
            self._chain = self._start()
            for proxy in self.views:
                proxy.target = self._chain.endpoint

    def finalize(self) -> None:
        """Make blocks until the one that is best now is final."""
        best = int(self._ask("chain_getHeader", [])["number"], 16)
        while int(self._ask("chain_getHeader", [self._ask("chain_getFinalizedHead", [])])["number"], 16) < best:
            self.blocks.make(1)

    def lose_blocks(self, count: int, *, keep: bool) -> None:
        name = "fork, extrinsics return" if keep else "fork, extrinsics lost"
        self.done[name] += self._ask("dev_rollBack", [{"count": count, "keep": keep}]) is not None

    def upgrade(self) -> None:
        """Returns once the new runtime has made some blocks: reading its metadata takes a second of a core."""
        before = self._ask("state_getRuntimeVersion", [])["specVersion"]
        self._ask("dev_upgradeRuntime", [])
        self.blocks.wait_for(6)
        self.done["runtime upgrade"] += self._ask("state_getRuntimeVersion", [])["specVersion"] != before

    def _ask(self, method: str, params: list) -> Any:
        """The result of a call over HTTP; None if the node answers with an error."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(
            self._chain.endpoint.replace("ws://", "http://"),
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return json.load(answer).get("result")

    def set_rule(self, rule: Callable[[str], Fault | None]) -> None:
        for proxy in self.views[1:]:
            proxy.rule = rule

    def faults(self) -> Counter[Fault]:
        return sum((proxy.faults for proxy in self.views[1:]), Counter())

    def close(self) -> None:
        self.blocks.close()
        self.recorder.close()
        for proxy in self.views:
            proxy.close()
        self._chain.close()
