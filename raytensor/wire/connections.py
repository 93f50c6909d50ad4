"""Who may hold a connection of a server, and how many bytes may wait for their signature to be checked.

In: connections as they open, prove a caller and close; bytes as they arrive. Out: whether there is room, and which idle
stranger makes room. Pure: nothing waits. Bounds: connections in total, of one address (IPv6: of one /64), and of
strangers, so that a share is left for callers that were admitted; unproved bytes in total and of one address.
Knows nothing of HTTP.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Protocol

from raytensor.config.wire import Server
from raytensor.wire.endpoints import group_of
from raytensor.wire.errors import Overloaded

ADDRESS_SHARE = 4  # one address may hold a quarter of the unproved bytes


class Peer(Protocol):
    """A connection."""

    group: str  # of its address

    def evict(self) -> None:
        """Close the connection, which is idle."""
        ...


class Connections:
    """The connections of one server. A stranger is one that has not had a request of an admitted caller answered."""

    def __init__(self, settings: Server) -> None:
        self._most, self._per_group = settings.max_connections, settings.max_connections_per_address
        self._most_strangers = max(1, int(settings.max_connections * (1.0 - settings.kept_for_callers)))
        self._groups: Counter[str] = Counter()
        self._strangers: set[Peer] = set()
        self._idle: OrderedDict[Peer, None] = OrderedDict()  # strangers without a request, idle for longest first
        self._known: set[Peer] = set()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def opened(self, peer: Peer) -> bool:
        """Count a new connection. Returns whether there is room for it; an idle stranger may have made room."""
        self._groups[peer.group] += 1
        self._strangers.add(peer)
        self._idle[peer] = None
        if self._groups[peer.group] > self._per_group:
            return False
        if len(self._strangers) <= self._most_strangers and len(self) <= self._most:
            return True
        oldest = next(one for one in self._idle)
        if oldest is peer:
            return False
        self._forget(oldest)
        self.evicted += 1
        oldest.evict()
        return True

    def busy(self, peer: Peer) -> None:
        """A request began."""
        self._idle.pop(peer, None)

    def idle(self, peer: Peer) -> None:
        """A request ended."""
        if peer in self._strangers:
            self._idle[peer] = None

    def proved(self, peer: Peer) -> None:
        """An admitted caller has proved itself on this connection."""
        if peer in self._strangers:
            self._strangers.discard(peer)
            self._idle.pop(peer, None)
            self._known.add(peer)

    def closed(self, peer: Peer) -> None:
        """The connection is gone."""
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if peer not in self._strangers and peer not in self._known:
            return
        self._strangers.discard(peer)
        self._known.discard(peer)
        self._idle.pop(peer, None)
        self._groups[peer.group] -= 1
        if not self._groups[peer.group]:
            del self._groups[peer.group]


class UnprovedBytes:
    """One budget for the bodies of a server whose signatures are not checked yet."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0
        self._groups: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that wait for their signature."""
        return self._held

    def open(self, address: str) -> Body:
        """The account of one body."""
        return Body(self, group_of(address))

    def take(self, group: str, size: int) -> None:
        """Count bytes that have arrived. Raises Overloaded when there is no room for them."""
        self._held += size
        self._groups[group] += size
        if self._held > self._most or self._groups[group] * ADDRESS_SHARE > self._most:
            raise Overloaded("too many bodies wait for their signature to be checked")

    def give_back(self, group: str, size: int) -> None:
        """The bytes were proved or dropped."""
        self._held -= size
        self._groups[group] -= size
        if not self._groups[group]:
            del self._groups[group]


class Body:
    """The bytes of one body within the budget. A context manager, which gives them back."""

    def __init__(self, budget: UnprovedBytes, group: str) -> None:
        self._budget, self._group, self._size = budget, group, 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._group, self._size)

    def took(self, size: int) -> None:
        """Count bytes that have arrived. Raises Overloaded when there is no room for them."""
        self._size += size
        self._budget.take(self._group, size)
