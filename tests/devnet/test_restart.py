"""The chain on disk: it survives its process, wherever that is killed, and refuses what is not its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from nodes import ROOT, Node, RawClient
from signing import ALICE, BOB, CHARLIE, signed, to_hex, transfer_call
from websocket import WebSocketException

# More kills for a longer night: RAYTENSOR_KILLS=200.
NUM_KILLS = int(os.environ.get("RAYTENSOR_KILLS", "6"))
TAO = 10**9


def height(client: RawClient, at=()) -> int:
    return int(client.call("chain_getHeader", at)["number"], 16)


def account_sum(client: RawClient) -> tuple[int, int]:
    """(sum of all balances, TotalIssuance) of the best block, read from raw storage."""
    head = client.call("chain_getBlockHash")
    prefix = "0x26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9"  # System.Account
    keys, start = [], None
    while page := client.call("state_getKeysPaged", [prefix, 500, start, head]):
        keys += page
        start = page[-1]
    changes = client.call("state_queryStorageAt", [keys, head])[0]["changes"]
    total = 0
    for _, value in changes:
        data = bytes.fromhex(value[2:])
        total += int.from_bytes(data[16:24], "little") + int.from_bytes(data[24:32], "little")
    issuance = "0xc2261276cc9d1f8598ea4b6a74b15c2f57c875e4cff74148e4628f264b974c80"  # Balances.TotalIssuance
    return total, int.from_bytes(bytes.fromhex(client.call("state_getStorage", [issuance, head])[2:]), "little")


class Load(threading.Thread):
    """Transfers as fast as the node takes them, until it is gone."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.client = RawClient(node.endpoint)
        self.genesis = bytes.fromhex(node.ready["genesis"][2:])
        self.num_sent = 0
        self._sent = threading.Condition()

    def run(self) -> None:
        try:
            nonces = {k.ss58_address: self.client.call("account_nextIndex", [k.ss58_address]) for k in (ALICE, BOB)}
            while True:
                for key in (ALICE, BOB):
                    dest = random.randbytes(4) + bytes(28)
                    raw = signed(transfer_call(dest, TAO), key, nonces[key.ss58_address], self.genesis)
                    if "result" in self.client.request("author_submitExtrinsic", [to_hex(raw)]):
                        nonces[key.ss58_address] += 1
                        with self._sent:
                            self.num_sent += 1
                            self._sent.notify_all()
        except (WebSocketException, OSError, json.JSONDecodeError):
            pass  # killed, as intended
        finally:
            self.client.close()

    def wait_for(self, number: int) -> None:
        """Returns once that many were sent."""
        with self._sent:
            assert self._sent.wait_for(lambda: self.num_sent >= number, 120)


def test_killed_at_any_moment_it_comes_back_whole(tmp_path):
    state = str(tmp_path / "state")
    moments = random.Random(11)
    seen: dict[int, str] = {}
    arguments = ("--block-time", "0.05", "--state", state)
    sent = 0
    for _ in range(NUM_KILLS):
        node = Node(*arguments)
        client = RawClient(node.endpoint)
        best = height(client)
        assert best >= max(seen, default=0), "a block that was seen is gone"
        for number, hash_ in seen.items():
            assert client.call("chain_getBlockHash", [number]) == hash_
        total, issuance = account_sum(client)
        assert total == issuance
        load = Load(node)
        load.start()
        load.wait_for(moments.randint(20, 200))
        finalized = client.call("chain_getFinalizedHead")
        number = height(client, [finalized])
        seen = {number: finalized, best: client.call("chain_getBlockHash", [best])}
        node.kill()
        client.close()
        load.join(60)
        assert not load.is_alive()
        sent += load.num_sent
    assert sent >= 20 * NUM_KILLS, "there was no load to speak of"
    node = Node(*arguments)
    client = RawClient(node.endpoint)
    total, issuance = account_sum(client)
    assert total == issuance
    # old bodies and headers are there, and chain up to the genesis
    block = client.call("chain_getBlock", [client.call("chain_getBlockHash", [1])])["block"]
    assert block["header"]["parentHash"] == node.ready["genesis"] and len(block["extrinsics"]) >= 1
    client.close()
    node.stop()


def test_a_clean_restart_goes_on_with_nonces_events_and_era_hashes(tmp_path):
    arguments = ("--block-time", "manual", "--state", str(tmp_path))
    node = Node(*arguments)
    client = RawClient(node.endpoint)
    genesis = bytes.fromhex(node.ready["genesis"][2:])
    for nonce in range(3):
        client.call(
            "author_submitExtrinsic", [to_hex(signed(transfer_call(CHARLIE.public_key, TAO), ALICE, nonce, genesis))]
        )
    head = client.call("dev_newBlock", [{"count": 5}])
    first = client.call("chain_getBlockHash", [1])
    keys = client.call("state_getKeys", ["0x"])
    before = client.call("state_queryStorageAt", [keys])[0]["changes"]
    client.close()
    node.stop()

    node = Node("--state", str(tmp_path), "--block-time", "manual")
    client = RawClient(node.endpoint)
    assert client.call("chain_getHead") == client.call("chain_getFinalizedHead") == head
    assert client.call("state_getKeys", ["0x"]) == keys
    assert client.call("state_queryStorageAt", [keys])[0]["changes"] == before
    assert client.call("account_nextIndex", [ALICE.ss58_address]) == 3
    assert len(client.call("chain_getBlock", [first])["block"]["extrinsics"]) == 4
    lost = client.request("state_getStorage", ["0x00", first])["error"]
    assert lost["code"] == 4003 and f"State already discarded for {first}" in lost["message"]
    # an era that began before the restart: period 8, phase 1, born at block 1
    mortal = signed(
        transfer_call(CHARLIE.public_key, TAO), ALICE, 3, genesis, era=b"\x12\x00", era_hash=bytes.fromhex(first[2:])
    )
    client.call("author_submitExtrinsic", [to_hex(mortal)])
    block = client.call("chain_getBlock", [client.call("dev_newBlock")])["block"]
    assert block["extrinsics"][1] == to_hex(mortal) and block["header"]["number"] == "0x6"
    client.close()
    node.stop()


def run_node(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "raytensor.devnet", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )


def test_refusals_say_what_to_do(tmp_path, devnet):
    port = devnet.endpoint.rsplit(":", 1)[1]
    taken = run_node("--port", port)
    assert taken.returncode == 2 and f"port {port} is not available" in taken.stderr and "--port 0" in taken.stderr
    for text in ("fast", "0", "-1", "nan"):
        assert "--block-time" in run_node("--block-time", text, "--port", "0").stderr
    assert "--finality-lag" in run_node("--finality-lag", "-1").stderr
    (tmp_path / "file").write_text("x")
    assert "--state" in run_node("--state", str(tmp_path / "file"), "--port", "0").stderr
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "chain.sqlite").write_bytes(b"no database " * 500)
    junk = run_node("--state", str(tmp_path / "junk"), "--port", "0")
    assert junk.returncode == 2 and "can't hold a chain" in junk.stderr


def test_a_state_belongs_to_one_process_and_one_chain(tmp_path):
    state = str(tmp_path / "state")
    node = Node("--block-time", "2", "--state", state)
    second = run_node("--state", state, "--port", "0")
    assert second.returncode == 2 and "another process uses it" in second.stderr
    node.stop()
    other = run_node("--state", state, "--block-time", "1", "--port", "0")
    assert other.returncode == 2 and "was created with --block-time 2" in other.stderr
    import sqlite3

    with sqlite3.connect(tmp_path / "state" / "chain.sqlite") as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'genesis'", ("00" * 32,))
    database.close()
    foreign = run_node("--state", state, "--port", "0")
    assert foreign.returncode == 2 and "belongs to another chain" in foreign.stderr
    # without --block-time it goes on with its own; end of standard input ends it
    with sqlite3.connect(tmp_path / "state" / "chain.sqlite") as database:
        database.execute("UPDATE meta SET value = ? WHERE name = 'genesis'", (node.ready["genesis"][2:],))
    database.close()
    assert run_node("--state", state, "--port", "0", "--exit-with-stdin").returncode == 0


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_signals_end_it_cleanly(how):
    import signal

    node = Node("--block-time", "0.1")
    client = RawClient(node.endpoint)
    client.call("chain_subscribeNewHeads")
    node.process.send_signal(getattr(signal, how))
    assert node.process.wait(timeout=60) == 0
    assert node.process.stderr.read() == b""
    client.close()


def test_it_starts_quickly():
    started = time.process_time(), time.monotonic()
    node = Node("--block-time", "manual")
    elapsed = time.monotonic() - started[1]
    node.stop()
    assert elapsed < 40  # about one second on a quiet core; the benchmark measures it


def test_nothing_heavy_is_imported_before_it_serves():
    code = (
        "import sys, raytensor.devnet.cli, raytensor.devnet.chain_spec, raytensor.devnet.server, raytensor.devnet.rpc\n"
        "raytensor.devnet.chain_spec.build_runtime()\n"
        "heavy = ('torch', 'ray', 'pandas', 'numba', 'scipy', 'transformers', 'substrateinterface')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_help_teaches():
    done = run_node("--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "--block-time instant" in done.stdout
