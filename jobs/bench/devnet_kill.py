"""kill -9 at random moments: a node under load with a state folder, killed and started again, many times.

After each start the chain must stand at the last finalized block that a client had seen, or later, with the same hash;
hold no half-applied block (every signer's nonce is the number of its extrinsics in the blocks, System.Number is the
best block's); and add up: accounts are Balances.TotalIssuance, accounts and pools are the issuance of TAO. The load is
transfers, stake added and removed, and a subnet with an epoch every five blocks; every tenth kill falls into the start.

    python jobs/bench/devnet_kill.py                        200 kills, about 6 minutes
    python jobs/bench/devnet_kill.py --kills 20 --seed 3    fewer, at other moments
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from bittensor_core import Keypair  # noqa: E402
from websocket import WebSocketException, create_connection  # noqa: E402

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet  # noqa: E402
from raytensor.chain.rpc.client import ChainClient  # noqa: E402
from raytensor.chain.wallet import DevKey  # noqa: E402
from raytensor.devnet.builtin import compact, read_compact  # noqa: E402
from raytensor.devnet.hashing import twox_128  # noqa: E402

RAO, TIMEOUT_S = 10**9, 60.0
SIGNERS = ("//Alice", "//Bob", "//Charlie")
BLOCK_S = 0.05


class Node:
    """One node process over the state folder."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", "raytensor.devnet", "--port", "0", "--quiet", "--exit-with-stdin"]
        command += ["--block-time", str(BLOCK_S), "--state", str(state)]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def endpoint(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the node ended with {self.process.wait()} instead of serving")
        return json.loads(line)["endpoint"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Client:
    def __init__(self, endpoint: str) -> None:
        self.socket = create_connection(endpoint, timeout=TIMEOUT_S)
        self.genesis = bytes.fromhex(self("chain_getBlockHash", 0)[2:])
        self.spec = self("state_getRuntimeVersion")["specVersion"]

    def __call__(self, method: str, *params):
        self.socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        reply = json.loads(self.socket.recv())
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply["result"]

    def storage(self, pallet: str, item: str, at: str) -> dict[bytes, bytes]:
        """All entries of an item at a block, by what follows the item's prefix."""
        prefix = twox_128(pallet.encode()) + twox_128(item.encode())
        pairs = self("state_getPairs", f"0x{prefix.hex()}", at)
        return {bytes.fromhex(key[2:])[32:]: bytes.fromhex(value[2:]) for key, value in pairs}


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


class Load(threading.Thread):
    """Signed transfers and stake operations, as fast as the node takes them; remembers the last finalized block."""

    def __init__(self, endpoint: str, netuid: int, hotkey: bytes, seed: int) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.netuid, self.hotkey = endpoint, netuid, hotkey
        self.random, self.sent = random.Random(seed), 0
        self.finalized: tuple[int, str] | None = None

    def run(self) -> None:
        try:
            client = Client(self.endpoint)
            keys = [Keypair.create_from_uri(uri) for uri in SIGNERS]
            nonces = {key.ss58_address: client("account_nextIndex", key.ss58_address) for key in keys}
            for i in itertools.count():
                key = keys[i % len(keys)]
                raw = self.extrinsic(client, key, nonces[key.ss58_address])
                try:
                    client("author_submitExtrinsic", f"0x{raw.hex()}")
                    nonces[key.ss58_address] += 1
                    self.sent += 1
                except ValueError:  # the pool refuses, as where stake is too small to remove
                    nonces[key.ss58_address] = client("account_nextIndex", key.ss58_address)
                if i % 20 == 0:
                    head = client("chain_getFinalizedHead")
                    self.finalized = (int(client("chain_getHeader", head)["number"], 16), head)
        except (WebSocketException, OSError, json.JSONDecodeError):
            pass  # killed, as intended

    def extrinsic(self, client: Client, key: Keypair, nonce: int) -> bytes:
        what = self.random.random()
        stake = self.hotkey + self.netuid.to_bytes(2, "little")
        if what < 0.7:
            call = b"\5\3\0" + self.random.randbytes(2) + bytes(30) + compact(RAO // 10)  # transfer_keep_alive
        elif what < 0.9:
            call = b"\7\2" + stake + RAO.to_bytes(8, "little")  # add_stake
        else:
            call = b"\7\3" + stake + (RAO // 2).to_bytes(8, "little")  # remove_stake
        extra = b"\0" + compact(nonce) + b"\0\0"
        versions = client.spec.to_bytes(4, "little") + (1).to_bytes(4, "little")
        signature = bytes(key.sign(call + extra + versions + client.genesis * 2 + b"\0"))
        body = b"\x84\0" + bytes(key.public_key) + b"\1" + signature + extra + call
        return compact(len(body)) + body


class Check:
    """What must hold after each start; counts extrinsics block by block."""

    def __init__(self) -> None:
        self.counted, self.nonces, self.finalized = 0, Counter(), (0, "")

    def __call__(self, client: Client) -> int:
        """Raises AssertionError with what does not hold. Returns the best block's number."""
        head = client("chain_getHead")
        best = int(client("chain_getHeader", head)["number"], 16)
        known, hash_ = self.finalized
        assert best >= known, f"block {known} was final, and the chain is at {best}"
        if hash_:
            assert client("chain_getBlockHash", known) == hash_, f"block {known} was final, and is another one now"
        assert number(client.storage("System", "Number", head)[b""]) == best, "System.Number is another block's"
        # A block that nobody knew to be final may be gone: count from there again.
        for height in range(self.counted + 1, known + 1):
            self._count(client, height, self.nonces)
        self.counted = max(self.counted, known)
        unseen = Counter(self.nonces)
        for height in range(known + 1, best + 1):
            self._count(client, height, unseen)
        accounts = client.storage("System", "Account", head)
        for uri in SIGNERS:
            public = bytes(Keypair.create_from_uri(uri).public_key)
            nonce = next(number(value[:4]) for key, value in accounts.items() if key.endswith(public))
            assert nonce == unseen[public], f"{uri} has nonce {nonce} and {unseen[public]} extrinsics in blocks"
        free = sum(number(value[16:24]) + number(value[24:32]) for value in accounts.values())
        pools = sum(number(value) for value in client.storage("SubtensorModule", "SubnetTAO", head).values())
        issued = number(client.storage("Balances", "TotalIssuance", head)[b""])
        assert free == issued, f"accounts hold {free}, Balances.TotalIssuance is {issued}"
        total = number(client.storage("SubtensorModule", "TotalIssuance", head)[b""])
        assert free + pools == total, f"accounts and pools hold {free + pools}, TotalIssuance is {total}"
        return best

    @staticmethod
    def _count(client: Client, height: int, nonces: Counter) -> None:
        for text in client("chain_getBlock", client("chain_getBlockHash", height))["block"]["extrinsics"]:
            raw = bytes.fromhex(text[2:])
            _, start = read_compact(raw, 0)
            if raw[start] == 0x84:
                nonces[raw[start + 2 : start + 34]] += 1


def make_network(endpoint: str) -> tuple[int, bytes]:
    """A subnet with an epoch every five blocks. Returns its netuid and its validator's hotkey."""
    neurons = [
        Neuron(name, role, DevKey(f"//kill//{name}//hot"), DevKey(f"//kill//{name}//cold"), stake_rao=stake)
        for name, role, stake in [("owner", "owner", 0), ("validator", "validator", 100 * RAO), ("miner", "miner", 0)]
    ]
    with ChainClient(endpoint) as client:
        subnet = make_subnet(client, SubnetSpec(neurons=neurons, tempo=5))
    return subnet.netuid, bytes(Keypair.create_from_uri("//kill//validator//hot").public_key)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the load")
    options = parser.parse_args()
    moments, outcomes, failures = random.Random(options.seed), Counter(), []
    sent = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        state, check = Path(folder) / "state", Check()
        node = Node(state)
        netuid, hotkey = make_network(node.endpoint())
        node.kill()
        print(f"seed {options.seed}, {options.kills} kills, blocks of {BLOCK_S} s", flush=True)
        started, before = time.monotonic(), 0
        for i in range(1, options.kills + 1):
            node = Node(state)
            if i % 20 == 1:
                print(
                    f"{i - 1:>4} kills {time.monotonic() - started:>5.0f} s, block {before}, {sent} extrinsics",
                    flush=True,
                )
            if i % 10 == 0:
                time.sleep(moments.uniform(0, 0.8))
                node.kill()
                outcomes["killed while it started"] += 1
                continue
            endpoint = node.endpoint()
            client = Client(endpoint)
            try:
                best = check(client)
                lost += max(before - best, 0)
                outcomes["came back whole"] += 1
            except AssertionError as error:
                outcomes["did not"] += 1
                failures.append(f"kill {i}: {error}")
            load = Load(endpoint, netuid, hotkey, options.seed * 1000 + i)
            load.start()
            time.sleep(moments.uniform(0, 1.2))
            before = int(client("chain_getHeader")["number"], 16)
            node.kill()
            load.join(TIMEOUT_S)
            sent += load.sent
            if load.finalized is not None:
                check.finalized = load.finalized
        node = Node(state)
        try:
            best = check(Client(node.endpoint()))
        except AssertionError as error:
            failures.append(f"at the end: {error}")
        node.kill()
    for outcome, count in sorted(outcomes.items()):
        print(f"{outcome:<40}{count:>6}")
    print(f"{'best block at the end':<40}{best:>6}")
    print(f"{'blocks that were made, not final, lost':<40}{lost:>6}")
    print(f"{'extrinsics taken':<40}{sent:>6}")
    for failure in failures:
        print(failure)
    bad = len(failures)
    goals = [
        {"name": "kills", "value": options.kills, "unit": "", "goal": 200, "ok": options.kills >= 200},
        {"name": "starts that did not come back whole", "value": bad, "unit": "", "goal": 0, "ok": not bad},
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(json.dumps({"bench": "devnet_kill", "machine": machine, "seed": options.seed, "goals": goals}))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
