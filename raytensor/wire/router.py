"""Several served hotkeys on one port: each request goes to the gate of the hotkey that it is signed for.

In: requests. Out: replies of the gates. All gates share who may ask and the limits of addresses; each has nonces,
questions in flight and counts of its own. A request for none of the hotkeys is answered by the first gate, which
refuses it. Knows nothing of sockets.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

from raytensor.config.wire import Server
from raytensor.types import Metagraph
from raytensor.wire.dialects import DIALECTS
from raytensor.wire.gate import Gate, Reply, Request


class Router:
    """gates: of each hotkey; they share one `AccessControl`. counts: of connections, which belong to no hotkey."""

    def __init__(self, gates: Mapping[str, Gate], settings: Server) -> None:
        assert gates
        self._gates = dict(gates)
        self._first = next(iter(self._gates.values()))
        self._dialects = [DIALECTS[name]() for name in settings.protocols]
        self.counts: Counter[str] = Counter()

    @property
    def server_id(self) -> str:
        """What /health answers as "server"."""
        return self._first.server_id

    def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of a subnet to decide who may ask."""
        self._first.update(metagraph)

    async def wait_until_ready(self) -> None:
        """Returns when requests that are signed from now on are accepted, whichever hotkey they are for."""
        await asyncio.gather(*(gate.wait_until_ready() for gate in self._gates.values()))

    async def handle(self, request: Request) -> Reply:
        """The reply to one request; never raises because of its content."""
        path = request.target.partition("?")[0]
        dialect = next((d for d in self._dialects if d.speaks(request.headers, path)), self._dialects[0])
        gate = self._gates.get(request.headers.get(dialect.receiver, ""), self._first)
        return await gate.handle(request)

    def totals(self) -> Counter[str]:
        """Outcomes of all requests and connections so far."""
        total = Counter(self.counts)
        for gate in self._gates.values():
            total.update(gate.counts)
        return total
