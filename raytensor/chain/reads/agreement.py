"""Whether two endpoints agree: on the blocks that they call final, and on the nonces of accounts.

In: clients of different endpoints of one chain. Out: the newest block that all call final, nonces that no endpoint has
seen used, and in words what they disagree on. `EndpointsWatch` asks now and then in a thread of its own.
Waits for: the endpoints. An endpoint that does not answer is no disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.identity import ChainIdentity
from raytensor.errors import ChainError
from raytensor.supervised import SupervisedThread


@dataclass(frozen=True, slots=True)
class Agreed:
    """final: the newest block that every endpoint calls final. nonces: the next nonce by address, the largest of all
    endpoints: a smaller one was used already. disagreement: "" if there is none.
    """

    final: Head
    nonces: dict[str, int]
    disagreement: str = ""


def agree(clients: Sequence[ChainClient], addresses: Sequence[str] = ()) -> Agreed:
    """Compare endpoints. Raises ChainUnavailable if one of them does not answer."""
    final = min((client.finalized() for client in clients), key=lambda head: head.number)
    found = []
    hashes = {client.endpoint: client.find_block_hash(final.number) for client in clients}
    if len(set(hashes.values())) > 1:
        listed = ", ".join(f"{endpoint} has {hash}" for endpoint, hash in hashes.items())
        found.append(f"endpoints disagree on final block {final.number}: {listed}")
    nonces = {}
    for address in addresses:
        if not found:  # at one block, where every endpoint must know the same
            at_final = {client.account_nonce(address, final.hash) for client in clients}
            if len(at_final) > 1:
                values = " and ".join(map(str, sorted(at_final)))
                found.append(f"endpoints disagree on the nonce of {address} at final block {final.number}: {values}")
        nonces[address] = max(client.account_next_index(address) for client in clients)
    return Agreed(final, nonces, "; ".join(found))


class EndpointsWatch:
    """Compares endpoints every `every_s` seconds from `start` to `close`. disagreement: the newest one, "" for none."""

    def __init__(
        self, endpoints: Sequence[str], addresses: Sequence[str], *, timeout_s: float = 20.0, every_s: float = 60.0
    ) -> None:
        self._endpoints, self._addresses = list(endpoints), list(addresses)
        self._timeout_s, self._every_s = timeout_s, every_s
        self._identity: ChainIdentity | None = None
        self.disagreement = ""
        self.thread = SupervisedThread(
            "endpoints", self._step, expected=(ChainError,), pause_s=(every_s, max(every_s, 600.0))
        )

    def start(self) -> None:
        """Begin to compare."""
        self.thread.start()

    def close(self) -> None:
        """Stop; waits up to 2 s for the request in flight."""
        self.thread.close(timeout_s=2)

    def _step(self, thread: SupervisedThread) -> None:
        clients: list[ChainClient] = []
        try:
            for endpoint in self._endpoints:
                runtime = clients[0].runtime if clients else None
                clients.append(ChainClient(endpoint, self._timeout_s, runtime=runtime, identity=self._identity))
                self._identity = self._identity or ChainIdentity(clients[0].genesis)
            self.disagreement = agree(clients, self._addresses).disagreement
        finally:
            for client in clients:
                client.close()
        thread.wait(self._every_s)
