"""A second program that uses a key of this writer: what its extrinsics mean, and how a person takes a key over.

In: extrinsics of our signers that the journal does not have. Out: whether the key goes on or stops, and why; the
request of `raytensor weights take-over`, which is kept in the journal, where a running writer finds it.

    free calls (addresses, commitments)   reported; the nonce is read again, and weights go on
    weights of a place of ours, money     the key stops until it is taken over
"""

from collections.abc import Iterable
from dataclasses import dataclass

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import extrinsic_hash, signer_of
from raytensor.chain.writer.journal import Journal

# Calls that take nothing from an account and compete with nothing that a writer keeps.
HARMLESS = {
    "SubtensorModule.serve_axon",
    "SubtensorModule.serve_axon_tls",
    "SubtensorModule.serve_prometheus",
    "SubtensorModule.associate_evm_key",
    "Commitments.set_commitment",
}
TAKE_OVER = "take over "  # name of a fact in the journal, before the address


@dataclass(frozen=True, slots=True)
class Foreign:
    """An extrinsic of one of our signers that this journal does not have. call: "" if it can't be read."""

    signer: str
    hash: str
    block: int
    call: str = ""

    @property
    def harmless(self) -> bool:
        return self.call in HARMLESS

    @property
    def sentence(self) -> str:
        what = f" ({self.call})" if self.call else ""
        return f"block {self.block} has extrinsic {self.hash}{what} of {self.signer}, which this writer did not send"


def look_back(client: ChainClient, journal: Journal, keys: dict[bytes, str], blocks: int) -> list[Foreign]:
    """The extrinsics with weights of our keys in the last blocks that the journal does not have, except those from
    before a key was taken over."""
    since = taken_over(journal)
    head, found = client.head(), []
    for number in range(max(1, head.number - blocks + 1), head.number + 1):
        _, extrinsics = client.extrinsics(client.block_hash(number))
        for data in extrinsics:
            signer = keys.get(signer_of(data) or b"")
            if signer is None or number <= since.get(signer, 0):
                continue
            call, hash = client.runtime.call_of(data), extrinsic_hash(data)
            if "weights" in call and not journal.knows_extrinsic(hash):
                found.append(Foreign(signer, hash, number, call))
    return found


def take_over(journal: Journal, signers: Iterable[str], block: int) -> None:
    """Record that these keys are this writer's alone from a block on: the other program was stopped."""
    with journal.transaction() as db:
        rows = [(TAKE_OVER + signer, str(block)) for signer in signers]
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?,?)", rows)


def taken_over(journal: Journal) -> dict[str, int]:
    """signer -> block at which it was last taken over."""
    rows = journal.rows("SELECT name, value FROM facts WHERE name LIKE ?", (f"{TAKE_OVER}%",))
    return {name.removeprefix(TAKE_OVER): int(value) for name, value in rows}
