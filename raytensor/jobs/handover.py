"""Hands weights and commitments to the chain writer and reports what became of them. `run` and `validate` both use it.

In: weights that are due; commitments of miners. Out: `ReceiptSeen`, `Extrinsics` and `Warned` events, and the last
attempt per hotkey and subnet, for the watchdog. The writer holds the newest weights of each (hotkey, subnet) and sets
them as soon as the chain allows.
Waits for: nothing, except `poll` and `settle` with a time-out. An unreachable writer is retried every 10 s.
Bounds: at most one call of each kind to the writer is in flight. While weights of a hotkey and subnet have no receipt,
newer ones wait here, for at most 30 s, and only the newest are kept.
Knows nothing of rounds, scores or extrinsics.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from raytensor.chain.intents import SetCommitment
from raytensor.chain.reads.watchdog import LastTry
from raytensor.chain.weights import fault_of, max_upscale
from raytensor.clock import since_boot
from raytensor.errors import cause_of
from raytensor.telemetry import events
from raytensor.types import Fate, Receipt, Weights

log = logging.getLogger(__name__)

STATE_EVERY_S = 10.0
RETRY_S = 10.0
REPLACE_AFTER_S = 30.0  # weights without a receipt are replaced by newer ones only after this time
# Begins the ids of weights that the writer itself sets again: why, and what to do.
_OF_THE_WRITER = {
    "renewed-": (
        "no new weights: the last good ones were set again",
        "look at the subnet's rounds: its mechanism makes no weights",
    ),
    "uids-": ("a uid of the last weights had changed hands in their block: they were set again", ""),
}
PAGE = 1000  # receipts per request

Place = tuple[int, str]  # netuid, hotkey


class Handover:
    """writer: handle of a `ChainWriter` actor. show: receives the events.

    cursor            sequence number of the last receipt that was shown; an earlier session's `cursor`.
    receipts_every_s  seconds between two requests for receipts.
    revive            the actor to call after an error of a call, as `JobWriter.revive`; None: the same for ever.
    committed         hotkey -> digest of the commitments that the chain has accepted through this object.
    unshown           events that could not be written.
    """

    def __init__(
        self,
        writer: Any,
        show: Callable[[events.Event], None],
        cursor: int = 0,
        *,
        receipts_every_s: float = 1.0,
        revive: Callable[[BaseException], Any] | None = None,
    ) -> None:
        self._writer, self._show, self._receipts_every_s = writer, show, receipts_every_s
        self._revive = revive or (lambda error: writer)
        self._shown = cursor
        # Receipts up to here are known. The last page of those already shown is read again: the watchdog needs it.
        self.cursor = max(0, cursor - PAGE)
        self.committed: dict[str, str] = {}
        self._newest: dict[Place, Weights] = {}  # weights that wait to be handed over
        self._in_flight: dict[Place, Weights] = {}
        self._holding: Any = None  # reference of the call in flight
        self._committing: Any = None
        self._promised: dict[str, str] = {}  # digests of the commitments in flight, by intent id
        self._asking: list[ray.ObjectRef] = []
        self._asked_at = self._state_at = self._retry_at = 0.0
        self._awaited: dict[Place, tuple[str, float]] = {}  # intent id without a receipt, when it was handed over
        self._last: dict[Place, tuple[float, Receipt | None]] = {}
        self._last_reported: dict[Place, str] = {}  # intent id of the newest receipt
        self._unrevealed: Mapping[Place, tuple[float, int]] = {}
        self._stopped: dict[str, str] = {}
        self._writer_trouble, self._writer_good_at = "it has not answered yet", time.monotonic()
        self._counters: dict[str, int] = {}
        self._trouble = ""
        self._foreign: set[str] = set()  # extrinsics of other programs that were reported
        self._zeroed: dict[Place, frozenset[str]] = {}
        self.unshown = 0
        self._answered_at = since_boot()

    @property
    def stopped(self) -> Mapping[str, str]:
        """Why the writer sends nothing more for a key, by its address."""
        return self._stopped

    @property
    def silent_s(self) -> float:
        """Seconds since the writer's last answer."""
        return since_boot() - self._answered_at

    @property
    def idle(self) -> bool:
        """Whether everything was handed over and has a receipt: included, committed, held for later, or refused."""
        return not (self._newest or self._awaited or self._holding or self._committing)

    @property
    def writer_silence(self) -> tuple[float, str]:
        """Seconds since the chain writer was known to work without trouble, and what is wrong with it.

        A writer that does not answer grows older, too; the seconds are 0 to about 15 while all is well.
        """
        return time.monotonic() - self._writer_good_at, self._writer_trouble or self._trouble or "it does not answer"

    @property
    def committing(self) -> bool:
        """Whether commitments are in flight, so that no others are taken now."""
        return self._committing is not None

    def hand_over(self, weights: Sequence[Weights]) -> None:
        """Queue weights. They replace earlier ones of the same hotkey and subnet that were not handed over yet."""
        for one in weights:
            self._newest[one.netuid, one.hotkey] = one
            self._warn_of_zeros(one)
        self.poll()

    def commit(self, commitments: Sequence[SetCommitment]) -> None:
        """Submit commitments, unless earlier ones are in flight: the caller then offers its newest again later."""
        if self._committing is None and commitments:
            self._promised = {one.intent_id: one.text for one in commitments}
            self._committing = self._writer.submit.remote(list(commitments))

    def poll(self, wait_s: float = 0.0) -> None:
        """Collect the writer's answers that have come and hand over what waits. Blocks for at most `wait_s` seconds."""
        refs = [ref for ref in (self._holding, self._committing, *self._asking) if ref is not None]
        if refs:
            if wait_s:
                ray.wait(refs, num_returns=1, timeout=wait_s)
            answered = ray.wait(refs, num_returns=len(refs), timeout=0)[0]
            if self._holding in answered:
                self._after_hold()
            if self._committing in answered:
                self._after_commit()
            if self._asking and all(ref in answered for ref in self._asking):
                self._after_ask()
        elif wait_s:
            time.sleep(wait_s)
        if self._newest and self._holding is None and time.monotonic() >= self._retry_at:
            self._hold()
        if not self._asking and time.monotonic() - self._asked_at >= self._receipts_every_s:
            self._ask()

    def settle(self, timeout_s: float) -> None:
        """Wait until `idle`, at most `timeout_s` seconds, and report the receipts and counters up to then."""
        end = time.monotonic() + timeout_s
        while not self.idle and time.monotonic() < end:
            self.poll(wait_s=0.05)
        for _ in range(2):  # an answer that was in flight may be older than the last receipt
            if not self._asking:
                self._ask()
            left = max(1.0, end - time.monotonic())
            if not ray.wait(self._asking, num_returns=len(self._asking), timeout=left)[1]:
                self._after_ask()

    def last_try(self, netuid: int, hotkey: str) -> LastTry | None:
        """The newest weights that the writer knows of, None if there are none."""
        found = self._last.get((netuid, hotkey))
        if found is None:
            return None
        (at, receipt), now, wall = found, since_boot(), time.time()
        first, count = self._unrevealed.get((netuid, hotkey), (wall, 0))
        unrevealed_s = max(0.0, wall - first)
        if receipt is None:
            return LastTry(now - at, unrevealed=count, unrevealed_s=unrevealed_s)
        fate, block, error, action = receipt.fate, receipt.block, receipt.error, receipt.action
        return LastTry(now - at, fate, block, error, action, count, unrevealed_s)

    # The writer's answers

    def _hold(self) -> None:
        """Hand over the newest weights of each place that has none without a receipt."""
        now = time.monotonic()
        kept = {place for place, (_, since) in self._awaited.items() if now - since < REPLACE_AFTER_S}
        ready = {place: one for place, one in self._newest.items() if place not in kept}
        if ready:
            self._newest = {place: one for place, one in self._newest.items() if place not in ready}
            self._in_flight, self._holding = ready, self._writer.hold.remote(list(ready.values()))

    def _after_hold(self) -> None:
        ref, self._holding = self._holding, None
        try:
            intent_ids = ray.get(ref, timeout=5)
        except RayError as error:
            if isinstance(error, ValueError):  # the writer refused each of them, and would refuse them again
                self._warn_once(error, "weights", "correct them: these are not handed over again")
                return
            # Else the writer restarts, and reconciles with the chain first.
            self._newest = self._in_flight | self._newest
            self._retry_at = time.monotonic() + RETRY_S
            self._warn_once(error, "weights", f"they are handed over again every {RETRY_S:g} s")
            return
        self._trouble = ""
        for intent_id, place in zip(intent_ids, self._in_flight):
            if self._last_reported.get(place) != intent_id:
                self._awaited[place] = intent_id, time.monotonic()
                self._last[place] = since_boot(), None

    def _after_commit(self) -> None:
        ref, self._committing = self._committing, None
        try:
            receipts: list[Receipt] = ray.get(ref, timeout=5)
        except RayError as error:
            self._warn_once(error, "commitments", "they are submitted again after the next round")
            return
        for receipt in receipts:
            if receipt.fate.done:
                self.committed[receipt.signer] = self._promised[receipt.intent_id]

    def _warn_of_zeros(self, weights: Weights) -> None:
        """Positive weights that become 0 on the chain are reported once, and again when they are others."""
        place, pairs = (weights.netuid, weights.hotkey), list(weights.values.items())
        if fault_of(pairs):
            return  # the writer says so
        scaled = max_upscale([value for _, value in pairs])
        zeroed = frozenset(name for (name, value), u16 in zip(pairs, scaled) if value > 0 and u16 == 0)
        if zeroed and zeroed != self._zeroed.get(place):
            names = ", ".join(sorted(zeroed)[:3]) + (", ..." if len(zeroed) > 3 else "")
            text = (
                f"{len(zeroed)} positive weights of {weights.hotkey[:8]} on subnet {weights.netuid} are 0 on the chain"
            )
            self._say(events.Warned(text=f"{text}: {names}", fix="weights are u16 of the largest: narrow their range"))
        self._zeroed[place] = zeroed

    def _say(self, event: events.Event) -> None:
        """Show an event. Where it can't be written (a full disk), weights go on without it."""
        try:
            self._show(event)
        except OSError as error:
            self.unshown += 1
            log.error("an event could not be written: %s", error)

    def _warn_once(self, error: BaseException, what: str, fix: str) -> None:
        before, self._trouble = self._trouble, cause_of(error)
        if self._trouble != before:
            self._say(events.Warned(text=f"the chain writer accepted no {what}: {self._trouble}", fix=fix))

    def _ask(self) -> None:
        """Request receipts and counters, and now and then the writer's state."""
        now = self._asked_at = time.monotonic()
        limit = min(PAGE, self._shown - self.cursor) if self.cursor < self._shown else PAGE
        self._asking = [self._writer.receipts_since.remote(self.cursor, limit), self._writer.counters.remote()]
        if now - self._state_at >= STATE_EVERY_S:
            self._state_at = now
            self._asking += [self._writer.state.remote(), self._writer.unrevealed.remote()]

    def _after_ask(self) -> None:
        refs, self._asking = self._asking, []
        try:
            (cursor, receipts), counters, *more = ray.get(refs, timeout=5)
        except RayError as error:  # the writer restarts; the same receipts are requested again
            self._writer = self._revive(error)
            return
        self._answered_at = since_boot()
        for receipt in receipts:
            self._received(receipt)
        if not receipts and self.cursor < self._shown:  # the journal was removed: its numbers begin anew
            self._shown = self.cursor
        self.cursor = cursor
        if counters != self._counters:
            self._counters = counters
            self._say(events.Extrinsics(**counters))
        if more:
            self._take_state(*more)

    def _received(self, receipt: Receipt) -> None:
        if receipt.netuid is not None and "weights" in receipt.call:
            place = receipt.netuid, receipt.signer
            self._last_reported[place] = receipt.intent_id
            if self._awaited.get(place, ("", 0.0))[0] == receipt.intent_id:
                del self._awaited[place]
            if receipt.error != "Superseded":
                self._last[place] = since_boot(), receipt
        if self.cursor < self._shown:
            return
        self._say(events.ReceiptSeen.of(receipt))
        for prefix, (why, fix) in _OF_THE_WRITER.items():
            if receipt.intent_id.startswith(prefix) and receipt.fate.done:
                self._say(events.Warned(text=f"subnet {receipt.netuid}: {why} ({receipt.signer[:8]})", fix=fix))
        if receipt.fate is Fate.FAILED:
            where = "" if receipt.netuid is None else f" on subnet {receipt.netuid}"
            text = f"{receipt.call} of {receipt.signer[:8]}{where}: {receipt.error}"
            self._say(events.Warned(text=text, fix=receipt.action or ""))

    def _take_state(self, state: Mapping[str, Any], unrevealed: Mapping[Place, tuple[float, int]]) -> None:
        self._unrevealed = unrevealed
        if state["trouble"] and state["trouble"] != self._writer_trouble:
            self._say(events.Warned(text=f"the chain writer: {state['trouble']}"))
        self._writer_trouble, self._writer_good_at = state["trouble"], time.monotonic() - state["age_s"]
        for sentence in state["foreign"].values():
            if sentence not in self._foreign:
                self._foreign.add(sentence)
                self._say(events.Warned(text=sentence, fix="stop the other program that uses this key"))
        if state["stopped"] != self._stopped:
            self._stopped = dict(state["stopped"])
            for signer, why in self._stopped.items():
                self._say(events.Warned(text=f"the chain writer sends nothing more for {signer}: {why}"))
