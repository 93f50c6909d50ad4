"""The queue of a pool: the items that wait for an actor, and how they are packed into calls.

In: items, each with a group and a cost. Out: lists of items of one group, one list per call.
Bounds: one call carries at most what `Packing` allows; the queue itself has no bound.
Groups are served in rotation, so that a large group (a subnet of thousands) does not delay a small one. An item that
was lost together with others is a suspect: from then on it runs alone. Pure; knows nothing of Ray.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass
class Item:
    """One unit of work. `payload`: arguments of the actor's method."""

    item_id: str
    hotkey: str
    payload: tuple[Any, ...]
    deadline_s: float | None = None
    group: str = ""
    cost: float = 1.0
    attempts: int = 0  # calls that carried it and were lost
    tried_on: int = -1  # number of the actor whose call with it was lost last; -1: none was lost
    actor_survived: bool = False  # that actor reported the loss and lives, so the loss is known to be this call's


@dataclass(frozen=True)
class Packing:
    """Bounds of one call: at most `max_items` items, and `max_cost` in all (tokens or bytes: the unit of `Item.cost`).

    An item that costs more than `max_cost` runs alone.
    """

    max_items: int = 1
    max_cost: float = math.inf

    def __post_init__(self) -> None:
        assert self.max_items >= 1 and self.max_cost > 0


class Queue:
    """The waiting items. Suspects are kept apart, in `suspects`."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._groups: OrderedDict[str, deque[Item]] = OrderedDict()
        self._max_cost: dict[str, float] = {}  # reduced bound of a call, for groups that ran out of memory
        self.suspects: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self.suspects) + sum(map(len, self._groups.values()))

    def push(self, item: Item) -> None:
        """Append an item to its group."""
        self._groups.setdefault(item.group, deque()).append(item)

    def push_front(self, items: Iterable[Item]) -> None:
        """Return items that were dispatched and not tried; they are next in their groups, in the same order."""
        for item in reversed(list(items)):
            self._groups.setdefault(item.group, deque()).appendleft(item)

    def has_full_call(self) -> bool:
        """Whether some group fills a call, so that waiting for more items of it would gain nothing."""
        return any(
            self._call_size(waiting) < len(waiting) or len(waiting) >= self._packing.max_items
            for waiting in self._groups.values()
        )

    def pop_call(self) -> list[Item]:
        """Remove and return the items of the next call, suspects excluded; empty when none wait."""
        if not self._groups:
            return []
        group, waiting = next(iter(self._groups.items()))
        items = [waiting.popleft() for _ in range(self._call_size(waiting))]
        if waiting:
            self._groups.move_to_end(group)
        else:
            del self._groups[group]
        return items

    def halve(self, items: list[Item]) -> None:
        """Return the items of a call that ran out of memory. Later calls of its group carry at most half its cost."""
        assert len(items) > 1
        self._max_cost[items[0].group] = sum(item.cost for item in items) / 2
        self.push_front(items)

    def clear(self) -> list[Item]:
        """Remove and return everything."""
        items = [*(item for waiting in self._groups.values() for item in waiting), *self.suspects]
        self._groups.clear()
        self.suspects.clear()
        return items

    def _call_size(self, waiting: deque[Item]) -> int:
        """How many of the first items of a group go into one call; at least one."""
        max_cost = min(self._packing.max_cost, self._max_cost.get(waiting[0].group, math.inf))
        size, cost = 0, 0.0
        for item in waiting:
            cost += item.cost
            if size and (size == self._packing.max_items or cost > max_cost):
                break
            size += 1
        return size
