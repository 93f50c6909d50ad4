"""Keeps the axons on the chain equal to the addresses that are served, and the server's view of its callers fresh.

In: a `Front`, metagraphs as they are read, the chain writer. Out: ServeAxon extrinsics for the hotkeys whose axon
differs; lines of text for what happened. `run` and `mine` both use it.
Waits for: the chain. An address is published only when it changed, when the chain's rate limit allows, and when a
request through it reaches the server; what failed is tried again every
`RETRY_S`, an address that is not reached every `REACH_AGAIN_S`.
Knows nothing of questions.
"""

import time
from collections.abc import Callable, Sequence

from ray.exceptions import RayError

from raytensor.chain.calls import Intent
from raytensor.chain.intents import ServeAxon
from raytensor.chain.rpc.client import ChainClient
from raytensor.errors import ChainError, cause_of
from raytensor.jobs.mine.front import Front
from raytensor.supervised import SupervisedThread
from raytensor.types import Metagraph, Receipt

PALLET = "SubtensorModule"
RETRY_S = 15.0
REACH_AGAIN_S = 3.0  # between two tries to reach an address that was not reached
POLL_S = 0.5
REACH_EVERY_S = 60.0
Submit = Callable[[Sequence[Intent]], list[Receipt]]


class AxonPublisher:
    """`start` runs it in a thread; `look` is one step of it. `close` ends the thread, never the front.

    metagraph_of  the newest metagraph of a subnet, None before the first.
    submit        gives intents to the writer that has the miners' keys, and returns their receipts.
    say           receives a line for each thing that happened or failed.

    thread        its thread, to be watched.
    unreachable   why the published addresses can't be reached, "" while they can; since: for how many seconds.
    """

    def __init__(
        self,
        front: Front,
        endpoints: Sequence[str] | str,
        netuids: Sequence[int],
        metagraph_of: Callable[[int], Metagraph | None],
        submit: Submit,
        say: Callable[[str], None],
        *,
        check_reachable: bool = True,
        timeout_s: float = 20.0,
    ) -> None:
        self._front, self._endpoints, self._netuids, self._metagraph_of = front, endpoints, list(netuids), metagraph_of
        self._submit, self._say, self._checks, self._timeout_s = submit, say, check_reachable, timeout_s
        self._known: dict[int, Metagraph] = {}
        self._served_at: dict[tuple[int, str], int] = {}  # block of our newest extrinsic, by netuid and hotkey
        self._retry_at = self._checked_at = 0.0
        self._said = ""
        self.unreachable, self._unreachable_since = "", 0.0
        expected = (ChainError, RayError, OSError, TimeoutError)
        self.thread = SupervisedThread("axons", self._step, on_error=self._failed, expected=expected)

    def start(self) -> None:
        """Look again and again, in a thread."""
        self.thread.start()

    def close(self) -> None:
        """End the thread. The axons stay on the chain."""
        self.thread.close(timeout_s=5)

    @property
    def unreachable_s(self) -> float:
        """Seconds for which the published addresses could not be reached; 0.0 while they can."""
        return time.monotonic() - self._unreachable_since if self.unreachable else 0.0

    def look(self) -> None:
        """Give new metagraphs to the server, and publish what differs. Raises `ChainError`, `RayError`."""
        for netuid in self._netuids:
            metagraph = self._metagraph_of(netuid)
            if metagraph is not None and metagraph is not self._known.get(netuid):
                self._known[netuid] = metagraph
                self._front.update(metagraph)
        if time.monotonic() - self._checked_at >= (REACH_AGAIN_S if self.unreachable else REACH_EVERY_S):
            self._check()
        changed = [(netuid, hotkey) for netuid in self._known for hotkey in self.differing(netuid)]
        if changed and self._checks and self.unreachable:
            self._tell(f"the axons are not published: {self.unreachable}")
        elif changed and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_S
            self._publish(changed)

    def differing(self, netuid: int) -> list[str]:
        """The hotkeys whose axon on the chain is not the address that is served."""
        metagraph = self._known.get(netuid)
        if metagraph is None:
            return []
        axons, served = dict(zip(metagraph.hotkeys, metagraph.axons, strict=True)), self._front.addresses
        wrong = [hotkey for hotkey in served if hotkey in axons and axons[hotkey] != served[hotkey]]
        return [hotkey for hotkey in wrong if self._served_at.get((netuid, hotkey), -1) < metagraph.block]

    def _check(self) -> None:
        self._checked_at = time.monotonic()
        why = self._front.unreachable()
        if why and not self.unreachable:
            self._unreachable_since = time.monotonic()
        self.unreachable = why

    def _publish(self, changed: Sequence[tuple[int, str]]) -> None:
        with ChainClient(self._endpoints, self._timeout_s) as client:
            head = client.head().number
            limits = client.query_many([(PALLET, "ServingRateLimit", [netuid]) for netuid, _ in changed])
            before = client.query_many([(PALLET, "Axons", list(place)) for place in changed])
        ready = [axon["block"] + (limit or 0) if axon else 0 for axon, limit in zip(before, limits)]
        now = [place for place, block in zip(changed, ready) if block <= head + 1]
        if late := max((block for block in ready if block > head + 1), default=0):
            self._tell(f"{len(changed) - len(now)} axons are published from block {late} on: the chain's rate limit")
        if not now:
            return
        ip, ports = self._front.ip, self._front.ports
        intents = [ServeAxon(signer=hotkey, netuid=netuid, ip=ip, port=ports[hotkey]) for netuid, hotkey in now]
        receipts = self._submit(intents)
        failed = [receipt for receipt in receipts if not receipt.fate.done]
        for receipt in receipts:
            if receipt.fate.done and receipt.netuid is not None:
                self._served_at[receipt.netuid, receipt.signer] = receipt.block or head
        if failed:
            why = f"{failed[0].error} ({failed[0].action})"
            self._tell(f"the miners listen, but {len(failed)} of {len(now)} axons were not published: {why}")
            return
        listed = sorted({self._front.addresses[hotkey] for _, hotkey in now})
        where = listed[0] if len(listed) == 1 else f"{listed[0]} .. {listed[-1]}"
        self._tell(f"{len(now)} miners answer signed HTTP at {where}; their axons are on the chain")

    def _tell(self, text: str) -> None:
        """Say a line, unless it was the last one."""
        if text != self._said:
            self._said = text
            self._say(text)

    def _step(self, thread: SupervisedThread) -> None:
        if not thread.wait(POLL_S):
            self.look()

    def _failed(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + RETRY_S
        self._tell(f"the axons could not be checked: {cause_of(error)}")
