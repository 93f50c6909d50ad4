"""A pool of replaceable actors that answers every item exactly once.

In: items with an id (`submit`). Out: `(item_id, result | Failure)` in completion order (`poll`).
Waits for: nothing in `submit`; at most `timeout_s` in `poll`.
Bounds: each actor has at most `queue` calls in flight; further items wait in the driver, `len(pool)` items in all.
Knows nothing of what an item means. A result is whatever the actor's method returned, `Failure` values included.

An actor that dies is replaced from the factory, at most `max_replacements` times in all. The call that it was running
is lost; the calls behind that one return to the queue without blame. Each item of the lost call is tried once more,
alone and on another actor. An item that is lost alone, after `max_attempts` attempts, fails. So a bad item fails and
its neighbours do not. (A result that was returned just before the actor died may be lost with it; that item runs once
more, alone.) A method that raises `WorkLost` reports the same loss from an actor that lives on. Its suspects then need
no idle actor, and where the error lists the results that were finished, only the item that was running is a suspect. A
call that runs out of memory is split in half, and so are later calls of its group. An actor gets items once its
constructor has returned, so a slow start costs no item its deadline. Any other exception fails the item if it ran
alone. When no actor is left, every waiting item fails, and `PoolExhausted` names the last cause.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.errors import PoolExhausted, WorkLost, cause_of
from raytensor.pool.items import Item, Packing, Queue
from raytensor.types import Failure, Reason

# Errors of Python, numpy and torch, by name: this module does not import torch.
_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}


@dataclass
class _Slot:
    """One actor and its calls in flight, oldest first."""

    number: int
    actor: Any
    starting: Any  # ObjectRef that is ready once the actor's constructor has returned; None from then on
    in_flight: dict[Any, list[Item]] = field(default_factory=dict)  # ObjectRef -> items of the call
    started_at: float = 0.0  # when the actor started its oldest call, monotonic seconds

    @property
    def refs(self) -> list[Any]:
        return [self.starting] if self.starting is not None else list(self.in_flight)

    @property
    def suspected(self) -> bool:
        """Whether an item in flight here may kill the actor, so that no other item may join it."""
        return any(i.tried_on >= 0 and not i.actor_survived for items in self.in_flight.values() for i in items)

    def finish(self, ref: Any) -> list[Item]:
        """Remove a finished call and return its items; the actor starts the next call now."""
        self.started_at = time.monotonic()
        return self.in_flight.pop(ref)

    def left_s(self) -> float | None:
        """Seconds until the deadline of the oldest call, the longest of its items'; None when an item has none."""
        limits = [item.deadline_s for item in next(iter(self.in_flight.values()), [])]
        known = [limit for limit in limits if limit is not None]
        return self.started_at + max(known) - time.monotonic() if known and len(known) == len(limits) else None


class Pool:
    """Work over replaceable actors.

    factory           makes one actor handle; called again for each replacement.
    method            name of the actor's method. Without `packing` it is called with the payload of one item; with
                      `packing`, with a list of payloads, and returns a list of as many results.
    size              number of actors, >= 1.
    queue             calls that an actor has in flight at most; 2 hides the transfer of the next one.
    packing           how items are packed into calls; None: one item per call.
    max_attempts      calls with an item that may be lost before it fails.
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
        max_attempts: int = 2,
        max_replacements: int | None = None,
    ) -> None:
        assert size >= 1 and queue >= 1 and max_attempts >= 1
        self._factory = factory
        self._method = method
        self._max_in_flight = queue
        self._packed = packing is not None
        self._max_attempts = max_attempts
        self._replacements_left = 4 * size if max_replacements is None else max_replacements
        self._num_slots = 0
        self._slots = [self._new_slot() for _ in range(size)]
        self._queue = Queue(packing or Packing())
        self._done: deque[tuple[str, Any]] = deque()
        self._last_cause = ""
        self.replaced = 0  # actors
        self.lost = 0  # calls whose actor, or its forked child, ended before the result
        self.calls = 0

    def __len__(self) -> int:
        """Items that were submitted and not yet returned by `poll`."""
        in_flight = sum(len(items) for slot in self._slots for items in slot.in_flight.values())
        return len(self._queue) + len(self._done) + in_flight

    @property
    def size(self) -> int:
        """Actors that are alive as far as the pool knows."""
        return len(self._slots)

    @property
    def actors(self) -> list[Any]:
        """Handles of those actors."""
        return [slot.actor for slot in self._slots]

    def submit(
        self,
        item_id: str,
        *payload: Any,
        hotkey: str = "",
        deadline_s: float | None = None,
        group: str = "",
        cost: float = 1.0,
    ) -> None:
        """Queue one item.

        deadline_s  seconds from the moment when a started actor begins the item's call; of several, the longest counts.
        group       only items of one group share a call; groups are served in rotation.
        cost        what the item counts against `Packing.max_cost`.

        Raises `PoolExhausted` when no actor is left.
        """
        if not self._slots:
            cause = f"the last one ended with: {self._last_cause}"
            raise PoolExhausted(f"no actor is left to run {self._method!r}; {cause}")
        self._queue.push(Item(item_id, hotkey, payload, deadline_s, group, cost))
        # A call that is not full yet goes to an idle actor only: behind another call it would gain nothing.
        self._dispatch(partly=False)

    def poll(self, timeout_s: float = 0.0) -> list[tuple[str, Any]]:
        """Finished items as `(item_id, result | Failure)`; waits up to `timeout_s` for the first one."""
        if not self._done:
            self._collect(timeout_s)
        ready = list(self._done)
        self._done.clear()
        return ready

    def drain(self, timeout_s: float) -> Iterator[tuple[str, Any]]:
        """Every unfinished item as it completes. Items that are unfinished after `timeout_s` fail with TIMEOUT."""
        end = time.monotonic() + timeout_s
        while len(self):
            left = end - time.monotonic()
            if left <= 0:
                self._fail_everything(Reason.TIMEOUT, f"not scored within {timeout_s:.0f} s")
            yield from self.poll(max(0.0, min(left, 1.0)))

    def close(self) -> None:
        """End the actors. Unfinished items fail with CANCELLED and can still be polled."""
        self._fail_everything(Reason.CANCELLED, "the pool was closed")
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()

    def _new_slot(self) -> _Slot:
        actor = self._factory()
        self._num_slots += 1
        return _Slot(self._num_slots, actor, actor.__ray_ready__.remote())

    def _dispatch(self, partly: bool = True) -> None:
        """Start all calls that can start. partly: also calls that are not full, behind others."""
        reserved = self._dispatch_suspects()
        while len(self._queue) > len(self._queue.suspects):
            alive = [slot for slot in self._slots if slot.starting is None and slot is not reserved]
            free = [slot for slot in alive if len(slot.in_flight) < self._max_in_flight and not slot.suspected]
            slot = min(free, key=lambda slot: len(slot.in_flight), default=None)
            if slot is None or (slot.in_flight and not partly and not self._queue.has_full_call()):
                return
            self._call(slot, self._queue.pop_call())

    def _dispatch_suspects(self) -> _Slot | None:
        """Start suspects, each in a call of its own, on another actor than before, which has nothing else in flight.

        Returns the actor that is being emptied for the next suspect. A suspect whose actor survived its loss needs no
        empty actor."""
        while self._queue.suspects:
            suspect = self._queue.suspects[0]
            alive = [slot for slot in self._slots if slot.starting is None and not slot.suspected]
            elsewhere = [slot for slot in alive if slot.number != suspect.tried_on]
            if not elsewhere and len(self._slots) > 1:
                return None  # the other actors run suspects, or start
            slot = min(elsewhere or alive, key=lambda slot: len(slot.in_flight), default=None)
            if slot is None or len(slot.in_flight) >= (self._max_in_flight if suspect.actor_survived else 1):
                return None if suspect.actor_survived else slot
            self._call(slot, [self._queue.suspects.popleft()])
        return None

    def _call(self, slot: _Slot, items: list[Item]) -> None:
        if not slot.in_flight:
            slot.started_at = time.monotonic()
        method = getattr(slot.actor, self._method)
        ref = method.remote([item.payload for item in items]) if self._packed else method.remote(*items[0].payload)
        slot.in_flight[ref] = items
        self.calls += 1

    def _collect(self, timeout_s: float) -> None:
        self._dispatch()
        refs = {ref: slot for slot in self._slots for ref in slot.refs}
        if refs:
            limits = [slot.left_s() for slot in self._slots]
            wait_s = max(0.0, min([timeout_s, *(left for left in limits if left is not None)]))
            ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
            if not ready and wait_s > 0:
                ready, _ = ray.wait(list(refs), num_returns=1, timeout=wait_s)
            self._receive({ref: refs[ref] for ref in ready})
        self._dispatch()

    def _receive(self, ready: dict[Any, _Slot]) -> None:
        dead: dict[int, tuple[_Slot, Reason]] = {}
        for ref, slot in ready.items():
            try:
                result = ray.get(ref, timeout=5)
            except RayTaskError as error:  # the method raised; the actor lives on
                self._raised(slot, slot.finish(ref), error)
            except (RayActorError, GetTimeoutError) as error:
                # Its finished calls are still collected below, so that the oldest call left is the running one.
                self._last_cause = cause_of(error)
                dead[slot.number] = (slot, Reason.CRASHED)
            else:
                if ref is slot.starting:
                    slot.starting = None
                    continue
                items = slot.finish(ref)
                results = result if self._packed else [result]
                assert len(results) == len(items), f"{self._method} gave {len(results)} results for {len(items)} items"
                self._done.extend((item.item_id, one) for item, one in zip(items, results))
        for slot in self._slots:  # a hung actor is treated as a dead one
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
            running = items
            if cause.done is not None:  # one after another: some are finished, one was running, the rest were not begun
                number = len(cause.done)
                self._done.extend((item.item_id, one) for item, one in zip(items, cause.done))
                running = items[number : number + 1]
                self._queue.push_front(items[number + 1 :])
            self._lost(slot, running, Reason.TIMEOUT if cause.timed_out else Reason.CRASHED)
        elif _OUT_OF_MEMORY & {kind.__name__ for kind in type(cause).__mro__}:
            if len(items) > 1:
                self._queue.halve(items)
            else:
                self._last_cause = "out of memory"
                self._lost(slot, items, Reason.ERROR)
        elif len(items) > 1:
            self._last_cause = cause_of(error)
            self._lost(slot, items, Reason.ERROR)
        else:
            self._fail(items[0], Reason.ERROR, cause_of(error))

    def _lost(self, slot: _Slot, items: list[Item], reason: Reason, actor_survived: bool = True) -> None:
        """A call ended without a result. A single item is to blame; of several, any may be.

        actor_survived: the actor reported the loss. If it died instead, an item whose loss was reported before may have
        finished in the meantime, and is tried again.
        """
        self.lost += 1
        for item in items:
            item.tried_on = slot.number
            item.attempts += 1
            to_blame = len(items) == 1 and (actor_survived or not item.actor_survived)
            item.actor_survived = actor_survived
            if to_blame and item.attempts >= self._max_attempts:
                self._fail(item, reason, f"gave up after {item.attempts} actors: {self._last_cause}")
            else:
                self._queue.suspects.append(item)

    def _replace(self, slot: _Slot, reason: Reason) -> None:
        """Only the oldest call was running; the calls behind it return to the queue without blame."""
        self._slots.remove(slot)
        ray.kill(slot.actor)
        calls = list(slot.in_flight.values())
        slot.in_flight.clear()
        if calls:
            self._lost(slot, calls[0], reason, actor_survived=False)
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
        running = [item for slot in self._slots for items in slot.in_flight.values() for item in items]
        for slot in self._slots:
            for ref in slot.in_flight:
                ray.cancel(ref, force=False)
            slot.in_flight.clear()
        for item in [*running, *self._queue.clear()]:
            self._fail(item, reason, detail)
