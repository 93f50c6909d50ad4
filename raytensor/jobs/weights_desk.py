"""Weights to the chain's writer, and its receipts back. Nothing here waits for the chain, or for the writer.

In: weights that are due. Out: receipts as events, and the newest of them for the watchdog. The writer keeps the newest
weights of each (hotkey, subnet) and sets them as soon as the chain allows; at most one call of each kind is under way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from raytensor.chain.reads.watchdog import LastTry
from raytensor.telemetry import events
from raytensor.types import Fate, Receipt, Weights

RECEIPTS_EVERY_S = 1.0
STATE_EVERY_S = 10.0
RETRY_S = 10.0
PAGE = 1000  # receipts that are asked for at once


class Handover:
    """writer: handle of a `chain.actor.ChainWriter`. cursor: of the receipts that were shown already."""

    def __init__(self, writer: Any, show: Callable[[events.Event], None], cursor: int = 0) -> None:
        self._writer, self._show = writer, show
        self._newest: dict[tuple[int, str], Weights] = {}
        self._on_the_way: dict[tuple[int, str], Weights] = {}
        self._handing: Any = None
        self._asking: list[Any] = []
        self._asked_at = self._state_at = 0.0
        self._unrevealed: dict[tuple[int, str], tuple[float, int]] = {}
        self._shown = cursor
        # Receipts up to here are known. The last of those that were shown are read again: the watchdog wants them.
        self.cursor = max(0, cursor - PAGE)
        self._retry_at = 0.0
        self._stopped: dict[str, str] = {}
        self._last: dict[tuple[int, str], tuple[float, Receipt | None]] = {}
        self.trouble = ""

    @property
    def idle(self) -> bool:
        """Whether everything was handed over, and the writer has said what became of it."""
        told = all(receipt is not None for _, receipt in self._last.values())
        return self._handing is None and not self._newest and told

    def hand(self, weights: Sequence[Weights]) -> None:
        """These are the newest; what was not handed over yet is replaced."""
        for one in weights:
            self._newest[one.netuid, one.hotkey] = one
        self.poll()

    def poll(self) -> None:
        """Hand over what waits if the writer is free, and take in receipts."""
        if self._handing is not None and ray.wait([self._handing], timeout=0)[0]:
            self._handed()
        if self._handing is None and self._newest and time.monotonic() >= self._retry_at:
            self._on_the_way, self._newest = self._newest, {}
            self._handing = self._writer.hold.remote(list(self._on_the_way.values()))
        if self._asking and not ray.wait(self._asking, num_returns=len(self._asking), timeout=0)[1]:
            self._take_receipts()
        if not self._asking and time.monotonic() - self._asked_at >= RECEIPTS_EVERY_S:
            self._asked_at = time.monotonic()
            most = min(PAGE, self._shown - self.cursor) if self.cursor < self._shown else PAGE
            self._asking = [self._writer.receipts_since.remote(self.cursor, most)]
            if self._asked_at - self._state_at >= STATE_EVERY_S:
                self._state_at = self._asked_at
                self._asking += [self._writer.state.remote(), self._writer.unrevealed.remote()]

    def last_try(self, netuid: int, hotkey: str) -> LastTry | None:
        """The newest weights that the writer knows of."""
        found = self._last.get((netuid, hotkey))
        if found is None:
            return None
        (at, receipt), now = found, time.time()
        first, count = self._unrevealed.get((netuid, hotkey), (now, 0))
        facts = (receipt.fate, receipt.block, receipt.error, receipt.action) if receipt else ()
        return LastTry(now - at, *facts, unrevealed=count, unrevealed_s=max(0.0, now - first))

    def _handed(self) -> None:
        ref, self._handing = self._handing, None
        try:
            ray.get(ref, timeout=5)
        except RayError as error:  # the writer restarts and looks at the chain first; the newest are handed in again
            trouble, self.trouble = self.trouble, _last_line(error)
            self._newest = self._on_the_way | self._newest
            self._retry_at = time.monotonic() + RETRY_S
            if self.trouble != trouble:
                fix = f"they are handed in again every {RETRY_S:g} s"
                self._show(events.Warned(text=f"the chain's writer took no weights: {self.trouble}", fix=fix))
            return
        self.trouble = ""
        for (netuid, hotkey), one in self._on_the_way.items():
            self._last[netuid, hotkey] = (time.time(), None)
            self._show(events.WeightsMade(netuid=netuid, hotkey=hotkey, values=one.values, block=one.made_at_block))

    def _take_receipts(self) -> None:
        refs, self._asking = self._asking, []
        try:
            (cursor, receipts), *more = ray.get(refs, timeout=5)
        except RayError as error:  # it is started again, and tells the same receipts then
            self.trouble = _last_line(error)
            return
        if more:
            self._take_state(*more)
        for receipt in receipts:
            if receipt.netuid is None:
                continue
            if receipt.error != "Superseded":
                self._last[receipt.netuid, receipt.signer] = (time.time(), receipt)
            if self.cursor >= self._shown:
                self._show(events.ReceiptSeen.of(receipt))
                if receipt.fate is Fate.FAILED:
                    text = f"weights of {receipt.signer[:8]} on subnet {receipt.netuid}: {receipt.error}"
                    self._show(events.Warned(text=text, fix=receipt.action or ""))
        if not receipts and self.cursor < self._shown:  # the journal was removed: it counts anew
            self._shown = self.cursor
        self.cursor = cursor

    def _take_state(self, state: dict[str, Any], unrevealed: dict[tuple[int, str], tuple[float, int]]) -> None:
        self._unrevealed = unrevealed
        if state["stopped"] != self._stopped:
            self._stopped = dict(state["stopped"])
            for signer, why in self._stopped.items():
                self._show(events.Warned(text=f"the chain's writer stopped writing for {signer}: {why}"))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
