"""A pool of replaceable actors that answers every item exactly once.

In: items with an id (`submit`). Out: `(item, result | Failure)` in completion order (`poll`).
Waits for: nothing in `submit`; at most `timeout_s` in `poll`.
Bounds: each actor holds at most `queue` calls; what exceeds that waits in the driver, `len(pool)` items in all.
Knows nothing of what an item means. A result is whatever the actor's method returned, `Failure` values included.

An actor that dies is replaced from its factory, up to `max_replacements` times in all. The call it had in hand is lost;
the calls behind it go back to the queue uncharged. What was lost is tried once more elsewhere, each item alone; an item
that is lost alone, and has been on `max_attempts` actors, fails. So a bad one fails and its neighbours do not.
(A dying actor may take the result before it to its grave: that item runs once more, alone.)
A method that raises `WorkLost` says the same and the actor lives on; then its suspects need no empty actor, and where it
says what was done before, only the item that was in hand is one.
A call that runs out of memory is halved, and so are later ones of its group. An actor gets items once its constructor is
through, so a slow start costs no item its deadline. A method that raises anything else fails the item that it ran alone.
When nobody is left, every item that waits fails, and `PoolExhausted` names the last cause.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.errors import PoolExhausted, WorkLost
from raytensor.pool.items import Item, Packing, Queue
from raytensor.pool.prefetch import Prefetch
from raytensor.types import Failure, Reason

_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}  # Python's, numpy's and torch's, by name: torch is not known here


@dataclass
class _Slot:
    """One actor and the calls that it holds, oldest first."""

    number: int
    actor: Any
    starting: Any  # ObjectRef that is there once the actor's constructor is through; None from then on
    held: dict[Any, list[Item]] = field(default_factory=dict)  # ObjectRef -> items of the call
    turned: float = 0.0  # when the actor turned to its oldest call

    @property
    def refs(self) -> list[Any]:
        return [self.starting] if self.starting is not None else list(self.held)

    @property
    def suspected(self) -> bool:
        """Whether an item in it may take the actor down, and must find nothing else there."""
        return any(item.tried_on >= 0 and not item.told for items in self.held.values() for item in items)

    def take(self, ref: Any) -> list[Item]:
        """A call that is done; the next one is the oldest now."""
        self.turned = time.monotonic()
        return self.held.pop(ref)

    def left_s(self) -> float | None:
        """Seconds until the oldest call's deadline, the longest of its items'; None when one has none."""
        limits = [item.deadline_s for item in next(iter(self.held.values()), [])]
        if not limits or None in limits:
            return None
        return self.turned + max(limits) - time.monotonic()


class Pool:
    """Work over replaceable actors.

    factory           makes one actor handle; called again for each replacement.
    method            name of the actor's method. Without `packing` it is called with an item's payload (and its data, if
                      it was fetched); with it, with a list of payloads and then the data of each, and returns a list.
    size              number of actors, >= 1.
    queue             calls that an actor holds at most; 2 hides the transfer of the next one.
    packing           how items are packed into calls; None: each by itself.
    prefetch          items that are fetched ahead, at most.
    max_attempts      calls that an item may take down before it is given up.
    max_replacements  actors that may be replaced over the pool's life; default 4 per actor.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        method: str,
        size: int,
        *,
        queue: int = 2,
        packing: Packing | None = None,
        prefetch: int = 16,
        max_attempts: int = 2,
        max_replacements: int | None = None,
    ) -> None:
        assert size >= 1 and queue >= 1 and max_attempts >= 1
        self._factory = factory
        self._method = method
        self._held_most = queue
        self._packed = packing is not None
        self._max_attempts = max_attempts
        self._replacements_left = 4 * size if max_replacements is None else max_replacements
        self._num_slots = 0
        self._slots = [self._new_slot() for _ in range(size)]
        self._queue = Queue(packing or Packing())
        self._prefetch = Prefetch(prefetch)
        self._done: deque[tuple[str, Any]] = deque()
        self._last_cause = ""
        self.replaced = 0  # actors
        self.lost = 0  # calls that an actor, or its child, took to its grave
        self.calls = 0

    def __len__(self) -> int:
        """Items that were submitted and not yet handed out by `poll`."""
        held = sum(len(items) for slot in self._slots for items in slot.held.values())
        return len(self._prefetch) + len(self._queue) + len(self._done) + held

    @property
    def size(self) -> int:
        """Actors that are alive as far as the pool knows."""
        return len(self._slots)

    def submit(
        self,
        item_id: str,
        *payload: Any,
        hotkey: str = "",
        deadline_s: float | None = None,
        group: str = "",
        cost: float = 1.0,
        fetch: Callable[[], tuple[Any, Any]] | None = None,
        fetch_deadline_s: float = 60.0,
    ) -> None:
        """Queue one item.

        deadline_s  from the moment an actor that has started turns to the item's call; of several, the longest counts.
        group       only items of one group share a call; groups take turns.
        cost        what the item counts against `Packing.max_cost`.
        fetch       starts the fetch of the item's data (prefetch.py says what it returns), within `fetch_deadline_s`.

        Raises `PoolExhausted` when no actor is left.
        """
        if not self._slots:
            raise PoolExhausted(
                f"no actor is left to run {self._method!r}; the last one ended with: {self._last_cause}"
            )
        item = Item(item_id, hotkey, payload, deadline_s, group, cost, fetch, fetch_deadline_s)
        if fetch is not None:
            self._prefetch.push(item)
            self._prefetch.start(self._queue.num_fetched)
        else:
            self._queue.push(item)
            # A call that is not full yet goes to an idle actor only: behind another it would gain nothing.
            self._dispatch(partly=False)

    def poll(self, timeout_s: float = 0.0) -> list[tuple[str, Any]]:
        """Items that are ready, as `(item_id, result | Failure)`; waits up to `timeout_s` for the first one."""
        if not self._done:
            self._collect(timeout_s)
        ready = list(self._done)
        self._done.clear()
        return ready

    def drain(self, timeout_s: float) -> Iterator[tuple[str, Any]]:
        """Every item that is still out, as it completes. Whatever is out after `timeout_s` fails with TIMEOUT."""
        end = time.monotonic() + timeout_s
        while len(self):
            left = end - time.monotonic()
            if left <= 0:
                self._fail_everything(Reason.TIMEOUT, f"not scored within {timeout_s:.0f} s")
            yield from self.poll(max(0.0, min(left, 1.0)))

    def close(self) -> None:
        """End the actors; what is still out fails with CANCELLED and can be polled."""
        self._fail_everything(Reason.CANCELLED, "the pool was closed")
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()

    # ------------------------------------------------------------------------------------------------ handing out

    def _new_slot(self) -> _Slot:
        actor = self._factory()
        self._num_slots += 1
        return _Slot(self._num_slots, actor, actor.__ray_ready__.remote())

    def _dispatch(self, partly: bool = True) -> None:
        """Hand out what can be. partly: also calls that are not full, behind others."""
        kept_free = self._hand_out_suspects()
        while len(self._queue) > len(self._queue.suspects):
            free = [
                slot
                for slot in self._slots
                if slot.starting is None
                and len(slot.held) < self._held_most
                and not slot.suspected
                and slot is not kept_free
            ]
            slot = min(free, key=lambda slot: len(slot.held), default=None)
            if slot is None or (slot.held and not partly and not self._queue.has_full_call()):
                return
            self._call(slot, self._queue.take())

    def _hand_out_suspects(self) -> _Slot | None:
        """Suspects run in calls of their own, elsewhere, on an actor that holds nothing else; the one that is being
        emptied for the next of them. Where the actor outlives a loss and tells of it, it need not be empty."""
        while self._queue.suspects:
            suspect = self._queue.suspects[0]
            alive = [slot for slot in self._slots if slot.starting is None and not slot.suspected]
            elsewhere = [slot for slot in alive if slot.number != suspect.tried_on]
            if not elsewhere and len(self._slots) > 1:
                return None  # the others are busy with suspects, or start
            slot = min(elsewhere or alive, key=lambda slot: len(slot.held), default=None)
            if slot is None or len(slot.held) >= (self._held_most if suspect.told else 1):
                return None if suspect.told else slot
            self._call(slot, [self._queue.suspects.popleft()])
        return None

    def _call(self, slot: _Slot, items: list[Item]) -> None:
        if not slot.held:
            slot.turned = time.monotonic()
        data = [item.data for item in items if item.data is not None]
        method = getattr(slot.actor, self._method)
        ref = (
            method.remote([item.payload for item in items], *data)
            if self._packed
            else method.remote(*items[0].payload, *data)
        )
        slot.held[ref] = items
        self.calls += 1

    # ------------------------------------------------------------------------------------------------- taking back

    def _collect(self, timeout_s: float) -> None:
        self._prefetch.start(self._queue.num_fetched)
        self._dispatch()
        refs = {ref: slot for slot in self._slots for ref in slot.refs}
        waited = [*refs, *self._prefetch.refs]
        if waited:
            limits = [slot.left_s() for slot in self._slots] + [self._prefetch.left_s()]
            wait_s = max(0.0, min([timeout_s, *(left for left in limits if left is not None)]))
            ready, _ = ray.wait(waited, num_returns=len(waited), timeout=0)
            if not ready and wait_s > 0:
                ready, _ = ray.wait(waited, num_returns=1, timeout=wait_s)
            self._take_back({ref: refs[ref] for ref in ready if ref in refs})
        for outcome in self._prefetch.step():
            if isinstance(outcome, Failure):
                self._done.append((outcome.item_id, outcome))
            else:
                self._queue.push(outcome)
        self._prefetch.start(self._queue.num_fetched)
        self._dispatch()

    def _take_back(self, ready: dict[Any, _Slot]) -> None:
        dead: dict[int, tuple[_Slot, Reason]] = {}
        for ref, slot in ready.items():
            try:
                result = ray.get(ref, timeout=5)
            except RayTaskError as error:  # the method raised; the actor lives on
                self._raised(slot, slot.take(ref), error)
            except (RayActorError, GetTimeoutError) as error:
                # What it had finished before is still collected below, so that the oldest call left is the one in hand.
                self._last_cause = _last_line(error)
                dead[slot.number] = (slot, Reason.CRASHED)
            else:
                if ref is slot.starting:
                    slot.starting = None
                    continue
                items = slot.take(ref)
                results = result if self._packed else [result]
                assert len(results) == len(items), f"{self._method} gave {len(results)} results for {len(items)} items"
                self._done.extend((item.item_id, one) for item, one in zip(items, results))
        for slot in self._slots:  # a hung actor is as good as a dead one
            left = slot.left_s()
            if slot.number not in dead and left is not None and left < 0:
                self._last_cause = "an item ran past its deadline"
                dead[slot.number] = (slot, Reason.TIMEOUT)
        for slot, reason in dead.values():
            self._replace(slot, reason)

    def _raised(self, slot: _Slot, items: list[Item], error: RayTaskError) -> None:
        cause = error.cause
        if isinstance(cause, WorkLost):
            self._last_cause = str(cause)
            in_hand = items
            if cause.done is not None:  # one after another: what is done is done, and what was not begun is no suspect
                number = len(cause.done)
                self._done.extend((item.item_id, one) for item, one in zip(items, cause.done))
                in_hand = items[number : number + 1]
                self._queue.push_front(items[number + 1 :])
            self._lost(slot, in_hand, Reason.TIMEOUT if cause.timed_out else Reason.CRASHED)
        elif _OUT_OF_MEMORY & {kind.__name__ for kind in type(cause).__mro__}:
            if len(items) > 1:
                self._queue.halve(items)
            else:
                self._last_cause = "out of memory"
                self._lost(slot, items, Reason.ERROR)
        elif len(items) > 1:
            self._last_cause = _last_line(error)
            self._lost(slot, items, Reason.ERROR)
        else:
            self._fail(items[0], Reason.ERROR, _last_line(error))

    def _lost(self, slot: _Slot, items: list[Item], reason: Reason, told: bool = True) -> None:
        """A call ended without an answer. Alone, its item is to blame; of several, any may be.

        told: the actor lives. Where it died, an item that was held beside other calls may have been done before.
        """
        self.lost += 1
        for item in items:
            item.tried_on = slot.number
            item.attempts += 1
            to_blame = len(items) == 1 and (told or not item.told)
            item.told = told
            if to_blame and item.attempts >= self._max_attempts:
                self._fail(item, reason, f"gave up after {item.attempts} actors: {self._last_cause}")
            else:
                self._queue.suspects.append(item)

    def _replace(self, slot: _Slot, reason: Reason) -> None:
        """Only the oldest call was in hand; the ones behind it go back to the queue uncharged."""
        self._slots.remove(slot)
        ray.kill(slot.actor)
        calls = list(slot.held.values())
        slot.held.clear()
        if calls:
            self._lost(slot, calls[0], reason, told=False)
        self._queue.push_front(item for items in calls[1:] for item in items)
        if self._replacements_left > 0:
            self._replacements_left -= 1
            self.replaced += 1
            self._slots.append(self._new_slot())
        elif not self._slots:
            self._fail_everything(Reason.CRASHED, f"no actor is left; the last one ended with: {self._last_cause}")

    def _fail(self, item: Item, reason: Reason, detail: str) -> None:
        self._done.append((item.item_id, Failure(item.item_id, item.hotkey, reason, detail)))

    def _fail_everything(self, reason: Reason, detail: str) -> None:
        waiting = [item for slot in self._slots for items in slot.held.values() for item in items]
        for slot in self._slots:
            for ref in slot.held:
                ray.cancel(ref, force=False)
            slot.held.clear()
        for item in [*waiting, *self._prefetch.clear(), *self._queue.clear()]:
            self._fail(item, reason, detail)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
