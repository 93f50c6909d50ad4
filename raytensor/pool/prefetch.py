"""The stage before the actors: submissions on their way into the object store.

In: items with a `fetch`. Out: the same items with their data's ref, or a `Failure` for those that could not be fetched.
`fetch()` starts the work somewhere (a Ray task, a method of `Fetcher`) and returns two refs: what became of it (None, or
a `Reason` and text), and the data. The data itself never comes to this process.
Bounds: `ahead` items are under way or lie fetched, so that the object store holds no more. Each has its own deadline; a
slow fetch delays nobody else.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from raytensor.pool.items import Item
from raytensor.types import Failure, Reason


@dataclass
class _Running:
    item: Item
    data: Any
    until: float


class Prefetch:
    """ahead: items that are under way or fetched and not yet handed to an actor, at most."""

    def __init__(self, ahead: int) -> None:
        assert ahead >= 1
        self._ahead = ahead
        self._todo: deque[Item] = deque()
        self._running: dict[Any, _Running] = {}

    def __len__(self) -> int:
        return len(self._todo) + len(self._running)

    @property
    def refs(self) -> list[Any]:
        """What to wait for."""
        return list(self._running)

    def left_s(self) -> float | None:
        """Seconds to the next deadline of a fetch."""
        if not self._running:
            return None
        return min(run.until for run in self._running.values()) - time.monotonic()

    def push(self, item: Item) -> None:
        self._todo.append(item)

    def start(self, num_fetched: int) -> None:
        """Start what the bound allows; `num_fetched` items lie fetched already."""
        while self._todo and len(self._running) + num_fetched < self._ahead:
            item = self._todo.popleft()
            assert item.fetch is not None
            told, data = item.fetch()
            self._running[told] = _Running(item, data, time.monotonic() + item.fetch_deadline_s)

    def step(self) -> list[Item | Failure]:
        """The items whose fetch has ended."""
        out: list[Item | Failure] = []
        ready = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)[0] if self._running else []
        for ref in ready:
            run = self._running.pop(ref)
            item = run.item
            try:
                failed = ray.get(ref, timeout=5)
            except RayError as error:
                failed = (Reason.ERROR, str(error).strip().splitlines()[-1])
            if failed is None:
                item.data = run.data
                out.append(item)
            else:
                out.append(Failure(item.item_id, item.hotkey, failed[0], f"not fetched: {failed[1]}"))
        now = time.monotonic()
        for ref, run in [pair for pair in self._running.items() if pair[1].until < now]:
            del self._running[ref]
            ray.cancel(ref)
            out.append(
                Failure(
                    run.item.item_id,
                    run.item.hotkey,
                    Reason.TIMEOUT,
                    f"not fetched within {run.item.fetch_deadline_s:g} s",
                )
            )
        return out

    def clear(self) -> list[Item]:
        """Stops everything; the items that were not through."""
        for ref in self._running:
            ray.cancel(ref)
        left = [*self._todo, *(run.item for run in self._running.values())]
        self._todo.clear()
        self._running.clear()
        return left
