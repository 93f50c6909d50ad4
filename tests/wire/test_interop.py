"""Both ways with the real others: bittensor 11's http_auth, and bittensor 10's axon and dendrite.

They live in environments of their own: RAYTENSOR_BITTENSOR_PYTHON names an interpreter with bittensor 11 (.ci/run makes
one), RAYTENSOR_BITTENSOR10_PYTHON one with bittensor 10.5. Without them the tests are skipped and say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from wirekit import client_settings, metagraph, server_settings, task

from raytensor.config import Freshness
from raytensor.types import Response
from raytensor.wire import auth
from raytensor.wire.auth import Key
from raytensor.wire.client import WireClient
from raytensor.wire.errors import AuthError
from raytensor.wire.server import WireServer

HERE = Path(__file__).resolve().parent
PEER_10 = HERE.parents[1] / "jobs" / "bench" / "wire_peers" / "bittensor10_peer.py"
NOW_NS = 1_800_000_000_000_000_000
SEEDS = {name: hashlib.blake2b(name.encode(), digest_size=32).digest() for name in ("validator", "miner")}


def interpreter(variable: str, what: str) -> str:
    """The Python that `variable` names."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no Python with {what}")
    return os.environ[variable]


class Peer:
    """A subprocess that answers JSON lines."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self) -> dict:
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):
            line = self.process.stdout.readline()
        assert line, f"{self.process.args} ended with {self.process.wait(60)}"
        return json.loads(line)

    def ask(self, **message) -> dict:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


# ------------------------------------------------------------------------------------------------ bittensor 11


@pytest.fixture(scope="module")
def eleven():
    python = interpreter("RAYTENSOR_BITTENSOR_PYTHON", "bittensor 11")
    peer = Peer(python, str(HERE / "bittensor11_peer.py"))
    yield peer
    peer.close()


BODIES = [b"", b'{"prompt": "hello"}', bytes(range(256)) * 40]


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
@pytest.mark.parametrize("body", BODIES, ids=len)
@pytest.mark.parametrize("bound", [True, False], ids=["bound", "unbound"])
def test_what_bittensor_11_signs_we_verify(eleven, scheme, body, bound, miner):
    signer = Key(SEEDS["validator"], scheme)
    told = eleven.ask(
        do="sign",
        seed=SEEDS["validator"].hex(),
        crypto_type=signer.crypto_type,
        method="post",
        path="/ask?a=b%20c&d",
        body=body.hex(),
        receiver=miner.ss58 if bound else None,
        nonce_ns=NOW_NS,
    )
    assert told["ss58"] == signer.ss58, "the same seed is the same hotkey"
    headers, where = told["headers"], {"method": "POST", "path": "/ask?a=b%20c&d"}
    claim = auth.read_claim(
        headers, receiver=miner.ss58, now_ns=NOW_NS + 10**9, fresh=Freshness(), require_receiver=bound
    )
    caller = auth.prove(claim, body=body, **where)
    assert (caller.hotkey, caller.nonce_ns, caller.scheme) == (signer.ss58, NOW_NS, scheme)
    with pytest.raises(AuthError):
        auth.prove(claim, body=body + b"x", **where)


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_what_we_sign_bittensor_11_verifies(eleven, scheme, body, miner):
    signer = Key(SEEDS["validator"], scheme)
    nonce_ns = NOW_NS + len(body)
    where = {"method": "POST", "path": "/ask?a=b%20c&d"}
    headers = auth.sign(signer, body=body, receiver=miner.ss58, nonce_ns=nonce_ns, **where)
    asked = {"do": "verify", "headers": headers, "body": body.hex(), "receiver": miner.ss58, "now_ns": NOW_NS, **where}
    told = eleven.ask(**asked)
    assert told == {"caller": signer.ss58, "nonce": nonce_ns, "crypto_type": signer.crypto_type}
    assert eleven.ask(**asked) == {"error": "ReplayedRequest"}
    assert eleven.ask(**(asked | {"body": (body + b"x").hex()})) == {"error": "BadSignature"}


def test_both_give_the_same_reasons(eleven, validator, miner):
    where = {"method": "POST", "path": "/ask"}
    good = auth.sign(validator, body=b"x", receiver=miner.ss58, nonce_ns=NOW_NS, **where)
    cases = [
        (good | {"X-Bittensor-Version": "2"}, NOW_NS),
        (good | {"X-Bittensor-Nonce": "x"}, NOW_NS),
        (good | {"X-Bittensor-Crypto": "rsa"}, NOW_NS),
        (good | {"X-Bittensor-Signature": "0xzz"}, NOW_NS),
        (good | {"X-Bittensor-Signature": "0x00"}, NOW_NS),
        (good | {"X-Bittensor-Hotkey": "5Grw"}, NOW_NS),
        (good | {"X-Bittensor-Crypto": "ed25519"}, NOW_NS),
        (good | {"X-Bittensor-Receiver": validator.ss58}, NOW_NS),
        ({name: value for name, value in good.items() if name != "X-Bittensor-Receiver"}, NOW_NS),
        (good, NOW_NS + 10 * 10**9 + 10**6),
        (good, NOW_NS - 2 * 10**9 - 10**6),
        (good | {"X-Bittensor-Nonce": str(NOW_NS + 1)}, NOW_NS),
        *(({name: value for name, value in good.items() if name != gone}, NOW_NS) for gone in good),
    ]
    seen = set()
    for headers, now_ns in cases:
        told = eleven.ask(do="verify", headers=headers, body=b"x".hex(), receiver=miner.ss58, now_ns=now_ns, **where)
        with pytest.raises(AuthError) as caught:
            claim = auth.read_claim(headers, receiver=miner.ss58, now_ns=now_ns, fresh=Freshness())
            auth.prove(claim, body=b"x", **where)
        assert type(caught.value).__name__ == told["error"], headers
        seen.add(told["error"])
    assert seen == {"MalformedAuth", "WrongReceiver", "StaleRequest", "BadSignature"}


# ------------------------------------------------------------------------------------------------ bittensor 10


@pytest.fixture(scope="module")
def ten():
    return interpreter("RAYTENSOR_BITTENSOR10_PYTHON", "bittensor 10.5")


# The keys of the benchmark's peers.
VALIDATOR, MINER = Key(bytes([1]) * 32), Key(bytes([2]) * 32)


def test_a_v10_dendrite_asks_our_server(ten):
    """It gets the bits that we answer, is refused when it is nobody, and reads why."""
    sys.path.insert(0, str(PEER_10.parent))
    import payload as bench

    ids, probs = bench.answer("small")

    async def ask(question):
        return Response(question.task_id, question.hotkey, np.array(ids, np.int32), np.array(probs, np.float32))

    async def run(hotkeys):
        server = WireServer(MINER.ss58, ask, server_settings(protocols=["axon_v10"]))
        _, port = await server.start()
        server.update(metagraph(hotkeys))
        command = [ten, str(PEER_10), "ask", "small", str(port), "1.0", "2"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        await server.stop()
        return json.loads(out.splitlines()[-1]), server.gate.counts

    told, counts = asyncio.run(run([VALIDATOR.ss58]))
    assert told["answered"] > 0 and told["failed"] == 0 and told["why"] == "", told
    assert counts["ok"] == told["answered"] + 10
    told, counts = asyncio.run(run([MINER.ss58]))
    assert told["answered"] == 0 and "403" in told["why"] and "not registered on subnet 1" in told["why"], told
    assert set(counts) == {"Refused"}


def test_we_ask_a_v10_axon(ten):
    sys.path.insert(0, str(PEER_10.parent))
    import payload as bench

    peer = Peer(ten, str(PEER_10), "serve", "small")
    try:
        axon = f"127.0.0.1:{peer.read()['port']}"
        question = task(VALIDATOR.ss58, MINER.ss58, rows=1, width=16, top_k=16)

        async def ask(signer, count):
            async with WireClient(signer, client_settings(protocol="axon_v10")) as client:
                return await asyncio.gather(*(client.ask(question, axon) for _ in range(count)))

        ids, probs = bench.answer("small")
        for outcome in asyncio.run(ask(VALIDATOR, 20)):  # at once, so some overtake others: every one must count
            assert isinstance(outcome, Response), outcome
            assert (outcome.ids.tolist(), outcome.probs.tolist()) == (ids, probs)
        refused = asyncio.run(ask(MINER, 1))[0]
        assert refused.reason.value == "refused" and "not the validator" in refused.detail, refused
    finally:
        peer.close()
