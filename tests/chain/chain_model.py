"""A chain as far as money orders see it: blocks, forks, finality, nonces, eras, and pools behind one lying address.

In: submissions with a chosen answer, blocks, forks. Out: what `ChainClient` answers, from a state that fits in a page,
so that a state machine can drive the chain writer through every interleaving.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

from raytensor.chain.calls import Cost
from raytensor.chain.errors import pool_refusal
from raytensor.chain.rpc.client import Head
from raytensor.chain.rpc.events import Event, outcomes
from raytensor.chain.rpc.runtime import Signed, extrinsic_hash
from raytensor.errors import BlockUnknown, ChainUnavailable, FateUnknown

OK, FAILS = "ok", "fails"
SUCCESS = Event("System", "ExtrinsicSuccess", {})
FAILURE = Event("System", "ExtrinsicFailed", {"dispatch_error": "BadOrigin", "dispatch_info": {}})
ITEM_FAILED = Event("Utility", "ItemFailed", {"error": "BadOrigin"})
REFUSALS = {
    "bad signature": {"code": 1010, "message": "Invalid Transaction", "data": "Transaction has a bad signature"},
    "payment": {"code": 1010, "message": "Invalid Transaction", "data": "Inability to pay some fees"},
    "stale": {"code": 1010, "message": "Invalid Transaction", "data": "Transaction is outdated"},
    "custom": {"code": 1010, "message": "Invalid Transaction", "data": "Custom error: 2"},
    "heavy": {"code": 1010, "message": "Invalid Transaction", "data": "Transaction would exhaust the block limits"},
    "banned": {"code": 1012, "message": "Transaction is temporarily banned"},
    "imported": {"code": 1013, "message": "Transaction Already Imported"},
    "too low": {"code": 1014, "message": "Priority is too low: (1 vs 1)"},
    "full": {"code": 1016, "message": "Immediately Dropped"},
    "internal": {"code": -32603, "message": "Internal error"},
}
ANSWERS = ("accepted", "lost", "malformed", "no block", "unavailable", *REFUSALS)


@dataclass
class Block:
    number: int
    hash: str
    parent: str
    extrinsics: list[bytes] = field(default_factory=list)
    results: list[list[str]] = field(default_factory=list)  # of each item of each extrinsic


class ModelRuntime:
    def encode_call(self, call) -> bytes:
        return json.dumps(call.to_json()).encode()

    def has_call(self, module, function) -> bool:
        return False

    def module_error(self, index, code) -> str:
        return "Error"

    def call_of(self, data) -> None:
        return None


class ModelChain:
    """A `ChainClient` for one signer. answer: of the next submission; taken: whether a pool has the bytes then."""

    spec_version = 1

    def __init__(self) -> None:
        self.runtime = ModelRuntime()
        self.blocks = [Block(0, "0xb0", "")]
        self.pool: list[bytes] = []
        self.final = 0
        self.answer, self.taken = "accepted", True
        self.fails: set[str] = set()  # intent ids whose call fails in a block
        self.calls_until_error: int | None = None
        self.signed: list[tuple[int, tuple[str, ...]]] = []
        self._count = 0

    # What the test does

    def make_block(self) -> None:
        number, parent = len(self.blocks), self.blocks[-1]
        self._count += 1
        block = Block(number, f"0xb{number}.{self._count}", parent.hash)
        nonce = self._nonce(len(self.blocks) - 1)
        for data in sorted(self.pool, key=lambda d: _facts(d)["nonce"]):
            facts = _facts(data)
            known = any(b.hash == facts["birth_hash"] for b in self.blocks)
            if facts["nonce"] == nonce and facts["birth"] < number <= facts["death"] and known:
                nonce += 1
                block.extrinsics.append(data)
                block.results.append([FAILS if value in self.fails else OK for value in facts["values"]])
        self.pool = [data for data in self.pool if _facts(data)["nonce"] >= nonce]
        self.blocks.append(block)

    def lose_blocks(self, count: int, keep: bool) -> None:
        count = min(count, len(self.blocks) - 1 - self.final)
        if count <= 0:
            return
        lost = self.blocks[-count:]
        del self.blocks[-count:]
        if keep:
            self.pool = [data for block in lost for data in block.extrinsics] + self.pool
        for _ in range(count):
            kept, self.pool = (self.pool, []) if not keep else ([], self.pool)
            self.make_block()
            self.pool += kept

    def finalize(self, lag: int) -> None:
        self.final = max(self.final, len(self.blocks) - 1 - lag)

    def landed(self, value: int, up_to: int | None = None) -> int:
        """How often a transfer of this amount took effect."""
        count = 0
        for block in self.blocks[: None if up_to is None else up_to + 1]:
            for data, results in zip(block.extrinsics, block.results):
                count += list(zip(_facts(data)["values"], results)).count((str(value), OK))
        return count

    def may_land(self) -> list[list[str]]:
        """The amounts of each pooled extrinsic that a later block can have."""
        number, nonce, found = len(self.blocks), self._nonce(len(self.blocks) - 1), []
        for facts in map(_facts, self.pool):
            known = any(block.hash == facts["birth_hash"] for block in self.blocks)
            if facts["nonce"] >= nonce and facts["birth"] < number <= facts["death"] and known:
                found.append(facts["values"])
        return found

    # ChainClient

    def head(self) -> Head:
        return self._head(self.blocks[-1])

    def finalized(self) -> Head:
        self._maybe_raise()
        return self._head(self.blocks[self.final])

    def find_block_hash(self, number: int) -> str | None:
        return self.blocks[number].hash if number < len(self.blocks) else None

    def block_hash(self, number: int) -> str:
        self._maybe_raise()
        if number >= len(self.blocks):
            raise BlockUnknown(f"no block {number}")
        return self.blocks[number].hash

    def extrinsics(self, block_hash: str) -> tuple[Head, list[bytes]]:
        self._maybe_raise()
        block = self._block(block_hash)
        return self._head(block), list(block.extrinsics)

    def block(self, block_hash: str) -> tuple[Head, list[str]]:
        head, extrinsics = self.extrinsics(block_hash)
        return head, [extrinsic_hash(data) for data in extrinsics]

    def block_events(self, block_hash: str, parent: str | None = None):
        self._maybe_raise()
        block = self._block(block_hash)
        own = [_events(results) for results in block.results]
        return SimpleNamespace(
            outcomes=lambda call, index: outcomes(call, own[index]), of=lambda index: own[index], runtime=self.runtime
        )

    def account_nonce(self, address: str, block_hash: str | None = None) -> int:
        self._maybe_raise()
        return self._nonce(self._block(block_hash).number if block_hash else len(self.blocks) - 1)

    def account_next_index(self, address: str) -> int:
        self._maybe_raise()
        nonce = self._nonce(len(self.blocks) - 1)
        while any(_facts(data)["nonce"] == nonce for data in self.pool):
            nonce += 1
        return nonce

    def runtime_at(self, block_hash: str) -> ModelRuntime:
        return self.runtime

    def refresh_runtime(self) -> ModelRuntime:
        self._maybe_raise()
        return self.runtime

    def fee(self, call, public_key):
        return 1, Cost(0, 1)

    def sign(self, call, signer, *, nonce, era, birth_hash):
        values = _values(call)
        facts = {"nonce": nonce, "birth": era.birth, "death": era.death, "birth_hash": birth_hash, "values": values}
        self.signed.append((nonce, tuple(values)))
        data = b"\x04" + json.dumps(facts | {"n": len(self.signed)}).encode()
        return Signed(data, extrinsic_hash(data))

    def submit(self, data: bytes):
        answer, taken = self.answer, self.taken
        if answer == "unavailable":
            raise ChainUnavailable("nobody answers")
        if taken and all(_facts(other)["nonce"] != _facts(data)["nonce"] for other in self.pool):
            self.pool.append(data)
        self._maybe_raise()
        if answer == "lost":
            raise FateUnknown("no answer")
        if answer == "malformed":
            raise ValueError("an answer that means nothing")
        if answer == "no block":
            raise BlockUnknown("Header was not found")
        return None if answer == "accepted" else pool_refusal(REFUSALS[answer])

    def _maybe_raise(self) -> None:
        if self.calls_until_error is not None:
            self.calls_until_error -= 1
            if self.calls_until_error < 0:
                self.calls_until_error = None
                raise KeyError("result")

    def _block(self, block_hash: str) -> Block:
        found = [block for block in self.blocks if block.hash == block_hash]
        if not found:
            raise BlockUnknown(f"no block {block_hash}")
        return found[0]

    def _nonce(self, number: int) -> int:
        return sum(len(block.extrinsics) for block in self.blocks[: number + 1])

    @staticmethod
    def _head(block: Block) -> Head:
        return Head(block.number, block.hash, block.parent)


def _events(results: list[str]) -> list[Event]:
    if len(results) == 1:
        return [SUCCESS if results[0] == OK else FAILURE]
    items = [Event("Utility", "ItemCompleted") if one == OK else ITEM_FAILED for one in results]
    return [*items, Event("Utility", "BatchCompleted"), SUCCESS]


def _facts(data: bytes) -> dict:
    return json.loads(data[1:])


def _values(call) -> list[str]:
    if "calls" in call.args:
        return [value for inner in call.args["calls"] for value in _values(inner)]
    return [str(call.args["value"])]


def key_of(name: str):
    public_key = hashlib.blake2b(name.encode(), digest_size=32).digest()
    return SimpleNamespace(ss58=name, public_key=public_key)
