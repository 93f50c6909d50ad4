"""Requests that no client would send, made from those that clients send: seeded, so that a failure comes again.

    python tests/devnet/fuzzing.py 1000000 7        that many inputs with that seed, into a node in this process

Every call of the runtime in signed extrinsics, every runtime API's arguments, raw storage keys, every RPC method with
parameters of the wrong kind, and broken JSON; bytes are flipped, dropped, inserted, cut.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from signing import ALICE, BOB, CHARLIE, signed, to_hex

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.rpc import NodeRpc

SIGNERS = (ALICE, BOB, CHARLIE)
# They would do what they were asked: make thousands of blocks, take them back, overwrite the state.
UNASKED = ("dev_newBlock", "dev_rollBack", "dev_setStorage", "engine_createBlock", "engine_finalizeBlock")
JUNK = [
    None,
    True,
    False,
    -1,
    0,
    7,
    1 << 16,
    10**30,
    1.5,
    float("inf"),
    "",
    "0x",
    "0xzz",
    "zz",
    "0x0",
    "\u00e9" * 50,
    "a" * 3000,
    [],
    {},
    [[]],
    [[[]]],
    {"a": {"b": []}},
    [None],
    ["0x"],
    "0x" + "00" * 32,
    ALICE.ss58_address,
]


class Collector:
    """A connection that keeps what it is sent."""

    def __init__(self) -> None:
        self.subscriptions: dict = {}
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        self.sent.append(text)


class Fuzz:
    """A node in this process, and what is thrown at it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.included, self.answers = 0, Counter()
        self.start_over()

    def start_over(self) -> None:
        """A chain at its genesis: some calls that succeed leave their signer with nothing to do."""
        self.chain = Chain(build_runtime())
        self.rpc = NodeRpc(self.chain, Author(self.chain, interval_s=None))
        self.runtime = self.chain.runtime
        self.names = [name for name in self.rpc.methods if name not in UNASKED]
        self.calls = [
            bytes((pallet.index, spec.index)) + b"".join(map(self.zero, spec.args.values()))
            for pallet in self.runtime.pallets.values()
            for spec in pallet.calls.values()
        ]
        self.apis = [
            (f"{api.name}_{method}", b"".join(map(self.zero, inputs.values())))
            for api in self.runtime.apis.values()
            for method, (inputs, _) in api.methods.items()
        ]
        self.items = list(self.runtime.store.items.values())

    def zero(self, type_: str) -> bytes:
        codec = self.runtime.codecs(type_)
        try:
            return codec.encode(codec.zero)
        except ValueError:  # what holds a call has no zero of its own: call 0 of pallet 0 is System.remark
            return b"\0\0\0"

    def mutated(self, data: bytes) -> bytes:
        out, random_ = bytearray(data), self.random
        for _ in range(random_.choice((0, 1, 1, 1, 2, 4))):
            at = random_.randrange(len(out) + 1)
            kind = random_.choice((0, 0, 1, 2, 3, 3, 4, 5, 5))
            if kind == 0 and at < len(out):
                out[at] = random_.randrange(256)
            elif kind == 1:
                del out[at:]
            elif kind == 2:
                out.insert(at, random_.randrange(256))
            elif kind == 3 and at < len(out):
                out[at] ^= 1 << random_.randrange(8)
            elif kind == 4:
                out[at : at + 4] = random_.choice(
                    (b"\xff" * 4, b"\0" * 4, b"\xfe\xff\xff\xff", b"\x03\xff\xff\xff\xff")
                )
            else:
                out[at : at + 32] = random_.choice(SIGNERS).public_key
        return bytes(out)

    def extrinsic(self) -> bytes:
        """Mostly well signed, so that what is decoded is also carried out."""
        key = self.random.choice(SIGNERS)
        nonce = self.chain.pool.next_nonce(key.public_key)
        raw = signed(self.mutated(self.random.choice(self.calls)), key, nonce, self.chain.genesis.hash)
        return raw if self.random.random() < 0.7 else self.mutated(raw)

    def request(self) -> str:
        random_ = self.random
        kind = random_.randrange(8)
        if kind < 2:
            name, params = (
                random_.choice(("author_submitExtrinsic", "author_submitAndWatchExtrinsic")),
                [to_hex(self.extrinsic())],
            )
        elif kind < 4:
            api, arguments = random_.choice(self.apis)
            name, params = "state_call", [api, to_hex(self.mutated(arguments))]
        elif kind == 4:
            item = random_.choice(self.items)
            key = next(iter(item.current), None)
            raw = item.prefix if key is None else item.raw_key(key)
            name = random_.choice(
                ("state_getStorage", "state_getStorageSize", "state_getKeysPaged", "state_queryStorageAt")
            )
            params = [[to_hex(self.mutated(raw))]] if name == "state_queryStorageAt" else [to_hex(self.mutated(raw)), 3]
        else:
            name = random_.choice(self.names)
            params = [random_.choice(JUNK) for _ in range(random_.randrange(5))]
            if random_.random() < 0.2:
                names = self.rpc.methods[name][1]
                params = {random_.choice((*names, "other")): random_.choice(JUNK) for _ in range(random_.randrange(4))}
        text = json.dumps({"jsonrpc": "2.0", "id": random_.choice((1, "a", None)), "method": name, "params": params})
        if kind == 7 and random_.random() < 0.5:
            at = random_.randrange(len(text))
            text = text[:at] + random_.choice(['"', "{", "]", "\\", "\x00", "", "1e999", "[" * 200]) + text[at + 1 :]
        return text if random_.random() > 0.02 else f"[{text},{text}]"

    def requests(self, count: int) -> Iterator[str]:
        for _ in range(count):
            yield self.request()

    async def ask(self, text: str) -> None:
        """One request; whatever comes back must be JSON-RPC, and no failure of ours."""
        connection = Collector()
        await self.rpc.handle(text, connection)
        if not connection.sent:  # only notifications get no answer
            requests = json.loads(text)
            assert all("id" not in one for one in (requests if isinstance(requests, list) else [requests])), text
        for sent in connection.sent:
            said = json.loads(sent)
            for reply in said if isinstance(said, list) else [said]:
                assert reply["jsonrpc"] == "2.0" and ("result" in reply or "error" in reply or "method" in reply), reply
                if "error" in reply:
                    assert isinstance(reply["error"]["code"], int) and isinstance(reply["error"]["message"], str)
                self.answers[
                    reply["error"]["code"] if "error" in reply else "result" if "result" in reply else "note"
                ] += 1
        assert self.rpc.num_failures == 0, f"failed inside: {text}"
        for subscription in list(connection.subscriptions.values()):
            subscription.close()

    async def run(self, count: int) -> None:
        for i, text in enumerate(self.requests(count)):
            await self.ask(text)
            if i % 100 == 99:
                self.included += len(self.chain.seal(self.runtime.timestamp_ms + 12_000).extrinsics) - 1
            if i % 2_500 == 2_499:
                self.check_money()
                self.start_over()

    def check_money(self) -> None:
        """What was carried out kept the books."""
        accounts = self.runtime.System.Account.current.values()
        total = sum(info.data.free + info.data.reserved for info in accounts)
        assert total == self.runtime.Balances.TotalIssuance.get()


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    fuzz, before = Fuzz(seed), time.process_time()
    asyncio.run(fuzz.run(count))
    took = time.process_time() - before
    print(f"{count} inputs, seed {seed}: {took:.0f} CPU s, {fuzz.included} extrinsics in blocks")
    print(*(f"{answer}: {number}" for answer, number in fuzz.answers.most_common()), sep=", ")
