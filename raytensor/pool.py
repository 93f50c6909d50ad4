"""A pool of replaceable actors that answers every item exactly once.

In: items with an id (`submit`). Out: `(item, result | Failure)` in completion order (`poll`).
Waits for: nothing in `submit`; at most `timeout_s` in `poll`.
Bounds: each actor holds at most `queue` items; what exceeds that waits in the driver, `len(pool)` items in all.
Knows nothing of what an item means. A result is whatever the actor's method returned, `Failure` values included.

An actor that dies is replaced from its factory, up to `max_replacements` times in all. The item it had in hand is tried
once more, alone on another actor, and fails after `max_attempts` deaths; the items behind it go back to the queue
uncharged. (A dying actor may take the result before it to its grave: that item is charged once, and then runs alone.) An actor gets items once its constructor is through, so a slow start costs no item its deadline.
A method that raises fails that item only. When nobody is left, every item that waits fails, and `PoolExhausted` names
the last cause.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from raytensor.errors import PoolExhausted
from raytensor.types import Failure, Reason


@dataclass
class _Item:
    item_id: str
    hotkey: str
    payload: tuple[Any, ...]
    deadline_s: float | None
    attempts: int = 0


@dataclass
class _Slot:
    """One actor and the items that it holds, oldest first."""

    actor: Any
    starting: Any  # ObjectRef that is there once the actor's constructor is through; None from then on
    held: dict[Any, _Item] = field(default_factory=dict)  # ObjectRef -> item
    turned: float = 0.0  # when the actor turned to its oldest item

    @property
    def refs(self) -> list[Any]:
        return [self.starting] if self.starting is not None else list(self.held)

    @property
    def suspected(self) -> bool:
        return any(item.attempts for item in self.held.values())

    def take(self, ref: Any) -> _Item:
        """An item that is done; the next one is the oldest now."""
        self.turned = time.monotonic()
        return self.held.pop(ref)

    def left_s(self) -> float | None:
        """Seconds until the oldest item's deadline; None when it has none."""
        item = next(iter(self.held.values()), None)
        if item is None or item.deadline_s is None:
            return None
        return self.turned + item.deadline_s - time.monotonic()


class Pool:
    """Work over replaceable actors.

    factory           makes one actor handle; called again for each replacement.
    method            name of the actor's method; called with the item's payload.
    size              number of actors, >= 1.
    queue             items that an actor holds at most; 2 hides the transfer of the next one.
    max_attempts      actors that an item may take down before it is given up.
    max_replacements  actors that may be replaced over the pool's life; default 4 per actor.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        method: str,
        size: int,
        *,
        queue: int = 2,
        max_attempts: int = 2,
        max_replacements: int | None = None,
    ) -> None:
        assert size >= 1 and queue >= 1 and max_attempts >= 1
        self._factory = factory
        self._method = method
        self._queue = queue
        self._max_attempts = max_attempts
        self._replacements_left = 4 * size if max_replacements is None else max_replacements
        self._slots = [self._new_slot() for _ in range(size)]
        self._waiting: deque[_Item] = deque()
        self._suspects: deque[_Item] = deque()  # were in hand when an actor died; each runs alone, to take nobody along
        self._done: deque[tuple[str, Any]] = deque()
        self._last_cause = ""
        self.replaced = 0

    def __len__(self) -> int:
        """Items that were submitted and not yet handed out by `poll`."""
        return len(self._waiting) + len(self._suspects) + len(self._done) + sum(len(slot.held) for slot in self._slots)

    @property
    def size(self) -> int:
        """Actors that are alive as far as the pool knows."""
        return len(self._slots)

    def submit(self, item_id: str, *payload: Any, hotkey: str = "", deadline_s: float | None = None) -> None:
        """Queue one item. `deadline_s` counts from the moment an actor that has started turns to it.

        Raises `PoolExhausted` when no actor is left.
        """
        if not self._slots:
            raise PoolExhausted(f"no actor is left to run {self._method!r}; the last one ended with: {self._last_cause}")
        self._waiting.append(_Item(item_id, hotkey, payload, deadline_s))
        self._dispatch()

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

    # ------------------------------------------------------------------------------------------------ inside

    def _new_slot(self) -> _Slot:
        actor = self._factory()
        return _Slot(actor, actor.__ray_ready__.remote())

    def _dispatch(self) -> None:
        while self._waiting or self._suspects:
            free = [slot for slot in self._slots if slot.starting is None and len(slot.held) < self._queue and not slot.suspected]
            slot = min(free, key=lambda slot: len(slot.held), default=None)
            if slot is None or (slot.held and not self._waiting):
                return
            item = self._suspects.popleft() if self._suspects and not slot.held else self._waiting.popleft()
            if not slot.held:
                slot.turned = time.monotonic()
            slot.held[getattr(slot.actor, self._method).remote(*item.payload)] = item

    def _collect(self, timeout_s: float) -> None:
        refs = {ref: slot for slot in self._slots for ref in slot.refs}
        if not refs:
            return
        deadlines = [left for slot in self._slots if (left := slot.left_s()) is not None]
        wait_s = max(0.0, min([timeout_s, *deadlines]))
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        if not ready and wait_s > 0:
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=wait_s)
        dead: dict[int, tuple[_Slot, Reason]] = {}
        for ref in ready:
            slot = refs[ref]
            try:
                result = ray.get(ref, timeout=5)
            except RayTaskError as error:  # the method raised; the actor lives on
                item = slot.take(ref)
                self._done.append((item.item_id, Failure(item.item_id, item.hotkey, Reason.ERROR, _last_line(error))))
            except (RayActorError, GetTimeoutError) as error:
                # What it had finished before is still collected below, so that the oldest item left is the one in hand.
                self._last_cause = _last_line(error)
                dead[id(slot)] = (slot, Reason.CRASHED)
            else:
                if ref is slot.starting:
                    slot.starting = None
                else:
                    item = slot.take(ref)
                    self._done.append((item.item_id, result))
        for slot in self._slots:  # a hung actor is as good as a dead one
            left = slot.left_s()
            if id(slot) not in dead and left is not None and left < 0:
                self._last_cause = "an item ran past its deadline"
                dead[id(slot)] = (slot, Reason.TIMEOUT)
        for slot, reason in dead.values():
            self._replace(slot, reason)
        self._dispatch()

    def _replace(self, slot: _Slot, reason: Reason) -> None:
        """Only the oldest item was in hand; the ones behind it go back to the queue uncharged."""
        self._slots.remove(slot)
        ray.kill(slot.actor)
        items = list(slot.held.values())
        slot.held.clear()
        if items:
            suspect = items[0]
            suspect.attempts += 1
            if suspect.attempts >= self._max_attempts:
                failure = Failure(suspect.item_id, suspect.hotkey, reason, f"gave up after {suspect.attempts} actors: {self._last_cause}")
                self._done.append((suspect.item_id, failure))
                items = items[1:]
        self._suspects.extend(item for item in items if item.attempts)
        self._waiting.extendleft(reversed([item for item in items if not item.attempts]))
        if self._replacements_left > 0:
            self._replacements_left -= 1
            self.replaced += 1
            self._slots.append(self._new_slot())
        elif not self._slots:
            self._fail_everything(Reason.CRASHED, f"no actor is left; the last one ended with: {self._last_cause}")

    def _fail_everything(self, reason: Reason, detail: str) -> None:
        waiting = [item for slot in self._slots for item in slot.held.values()] + [*self._waiting, *self._suspects]
        for slot in self._slots:
            for ref in slot.held:
                ray.cancel(ref, force=False)
            slot.held.clear()
        self._waiting.clear()
        self._suspects.clear()
        self._done.extend((item.item_id, Failure(item.item_id, item.hotkey, reason, detail)) for item in waiting)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
