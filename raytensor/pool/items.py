"""What waits for an actor, and how it is packed into calls.

In: items, each with a group and a cost. Out: lists of items of one group that one call carries. Groups take turns, so
that a large one (a subnet of thousands) does not keep a small one waiting. An item that was lost with others is a
suspect: it runs by itself from then on. Pure; knows nothing of Ray.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class Item:
    """One unit of work. `fetch` starts the fetch of its data (see prefetch.py); `data` is the ref of what came."""

    item_id: str
    hotkey: str
    payload: tuple[Any, ...]
    deadline_s: float | None = None
    group: str = ""
    cost: float = 1.0
    fetch: Callable[[], tuple[Any, Any]] | None = None
    fetch_deadline_s: float = 60.0
    data: Any = None
    attempts: int = 0  # calls with it that were lost
    tried_on: int = -1  # number of the actor that was last lost over it
    told: bool = False  # the actor lived on and told of the loss, so what the item does to a call is known exactly


@dataclass(frozen=True)
class Packing:
    """Bounds of one call: at most `max_items` items, and `max_cost` (tokens, bytes: what `cost` counts) in all.

    An item that costs more than `max_cost` runs by itself.
    """

    max_items: int = 1
    max_cost: float = math.inf

    def __post_init__(self) -> None:
        assert self.max_items >= 1 and self.max_cost > 0


class Queue:
    """The items that wait, suspects apart."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._groups: OrderedDict[tuple[str, bool], deque[Item]] = OrderedDict()
        self._max_cost: dict[str, float] = {}  # groups that ran out of memory: what one call may cost since
        self.suspects: deque[Item] = deque()
        self.num_fetched = 0  # items in the groups whose data lies in the object store

    def __len__(self) -> int:
        return len(self.suspects) + sum(map(len, self._groups.values()))

    def push(self, item: Item) -> None:
        self._group(item).append(item)
        self.num_fetched += item.data is not None

    def push_front(self, items: Iterable[Item]) -> None:
        """Items that were handed out and come back untried."""
        for item in reversed(list(items)):
            self._group(item).appendleft(item)
            self.num_fetched += item.data is not None

    def has_full_call(self) -> bool:
        """Whether a group fills a call, so that waiting for more of it would gain nothing."""
        return any(
            self._length(waiting) < len(waiting) or len(waiting) >= self._packing.max_items
            for waiting in self._groups.values()
        )

    def take(self) -> list[Item]:
        """The items of the next call, without the suspects; empty when none wait."""
        while self._groups:
            key, waiting = next(iter(self._groups.items()))
            items = [waiting.popleft() for _ in range(self._length(waiting))]
            if waiting:
                self._groups.move_to_end(key)
            else:
                del self._groups[key]
            self.num_fetched -= sum(item.data is not None for item in items)
            if items:
                return items
        return []

    def halve(self, items: list[Item]) -> None:
        """A call that ran out of memory comes back; from now on one call of its group carries at most half of it."""
        assert len(items) > 1
        self._max_cost[items[0].group] = sum(item.cost for item in items) / 2
        self.push_front(items)

    def clear(self) -> list[Item]:
        """Takes out everything."""
        left = [*(item for waiting in self._groups.values() for item in waiting), *self.suspects]
        self._groups.clear()
        self.suspects.clear()
        self.num_fetched = 0
        return left

    def _group(self, item: Item) -> deque[Item]:
        # Items with and without fetched data differ in how the actor is called: they never share a call.
        return self._groups.setdefault((item.group, item.data is not None), deque())

    def _length(self, waiting: deque[Item]) -> int:
        """How many of these go into one call; at least one."""
        most = min(self._packing.max_cost, self._max_cost.get(waiting[0].group, math.inf)) if waiting else 0.0
        number, cost = 0, 0.0
        for item in waiting:
            cost += item.cost
            if number and (number == self._packing.max_items or cost > most):
                break
            number += 1
        return number
