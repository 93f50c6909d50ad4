"""bittensor 11, unchanged, from an environment of its own, against a real node: its SDK and `btcli`.

RAYTENSOR_BITTENSOR_PYTHON names the interpreter of that environment, as in
`python -m venv bt && bt/bin/pip install 'bittensor==11.3.*'`; .ci/run makes one.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bittensor_core import Keypair
from nodes import Node, RawClient

PYTHON = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="RAYTENSOR_BITTENSOR_PYTHON names no interpreter that has bittensor 11"
)
TIMEOUT_S = 240
# Secret seeds that the SDK derives from //Alice and //Charlie, as every Substrate chain for development has them.
SEEDS = {
    "alice": "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a",
    "charlie": "0xbc1ede780f784bb6991a585e4f6e61522c14e1cae6ad0895fb57b9a205a8f938",
}
ALICE, BOB, CHARLIE = (Keypair.create_from_uri(f"//{name}").ss58_address for name in ("Alice", "Bob", "Charlie"))
OWNER, VALIDATOR, MINER = (
    Keypair.create_from_uri(uri).ss58_address for uri in ("//Alice//owner", "//Bob//validator", "//Charlie//miner")
)


@pytest.fixture
def node():
    made = Node("--block-time", "0.25")
    yield made
    assert "Traceback" not in made.stop()


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """A home of its own, since bittensor keeps wallets and caches there; no endpoint but ours."""
    return os.environ | {
        "HOME": str(home),
        "BT_NETWORK": endpoint,
        "BT_WALLET_PATH": str(home / "wallets"),
        "BT_FALLBACK_ENDPOINTS": "none",
        "BT_ARCHIVE_ENDPOINTS": "none",
    }


def test_a_subnets_life_through_the_sdk(node, tmp_path):
    script = Path(__file__).with_name("bittensor11_session.py")
    ran = subprocess.run(
        [PYTHON, script, node.endpoint],
        env=environment(tmp_path, node.endpoint),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout)
    assert said["received_rao"] == 5 * 10**9
    assert said["max_burn"] == 10**9
    assert (said["register_validator"], said["register_miner"]) == (1, 2)
    assert said["root_stake_rao"] == 7 * 10**9
    assert said["removed_rao"] == 2 * 10**9
    assert said["moved_rao"] == 10**9
    assert "hello" in said["commitment"]
    assert said["removed_by_limit_rao"] == 10**9 and said["limit_added"]
    success, message, unchanged = said["limit_refused"]
    assert not success and "slippage" in message.lower() and unchanged
    # sealed for quicknet's key, of which this chain has no pulses: queued, and dropped unopened in its epoch
    assert (said["pending_commits"], said["pending_after_the_reveal_epoch"]) == (1, 0)
    assert said["weights_after_timelock"] == {}
    success, message = said["early_reveal"]
    assert not success and "reveal" in message.lower()
    third = pytest.approx(1 / 3, abs=1e-4)
    assert said["weights_by_hash"] == {"1": {"2": pytest.approx(2 / 3, abs=1e-4), "1": third}}
    assert said["weights"] == {"1": {"2": 1.0}}
    assert said["metagraph"] == {OWNER: [0, None], VALIDATOR: [1, None], MINER: [2, "203.0.113.7:8091"]}


def new_blocks(node: Node, count: int) -> None:
    client = RawClient(node.endpoint)
    client.call("dev_newBlock", [{"count": count}])
    client.close()


class Btcli:
    """`btcli --json ...` of that environment; a refusal fails the test."""

    def __init__(self, node: Node, home: Path) -> None:
        self.program = Path(PYTHON).with_name("btcli")
        self.env = environment(home, node.endpoint)

    def sudo(self, call: str, **arguments) -> None:
        self.sends("call", call, "--args", json.dumps(arguments), "--sudo")

    def __call__(self, *arguments: str | int):
        command = [self.program, "--json", *map(str, arguments)]
        ran = subprocess.run(
            command, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert ran.returncode == 0, f"{' '.join(map(str, arguments))}: {ran.stdout[-1000:]} {ran.stderr[-2000:]}"
        return json.loads(ran.stdout)

    def sends(self, *arguments: str | int, wallet: str = "alice", shielded: bool = False) -> dict:
        """A command that sends an extrinsic, signed without questions."""
        said = self(*arguments, "-w", wallet, "-y")
        assert said["success"], said
        assert bool(said.get("data", {}).get("shielded")) == shielded, said
        return said


def test_a_subnets_life_through_btcli(node, tmp_path):
    btcli = Btcli(node, tmp_path)

    def at_once(*commands: tuple) -> list:
        """Commands that do not depend on each other, over both cores."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda command: btcli(*command), commands))

    at_once(*[("wallet", "regen-coldkey", "-w", name, "--seed", seed, "--no-password") for name, seed in SEEDS.items()])
    made = at_once(*[("wallet", "new-hotkey", "-w", name, "-H", "default") for name in SEEDS])
    hot = {name: said["ss58"] for name, said in zip(SEEDS, made)}

    assert btcli("wallet", "balance", BOB)["free_tao"] == 1_000_000
    btcli.sends("wallet", "transfer", "--dest", BOB, "--amount", 5)
    balance = btcli("wallet", "balance", BOB)
    assert (balance["free_tao"], balance["stake_positions"]) == (1_000_005, 0)

    cost = btcli("subnets", "create-cost")["tao"]
    assert btcli.sends("subnets", "create")["data"] == pytest.approx(
        {
            "netuid": 2,
            "registration_mode": "immediate",
            "registration_price_rao": cost * 10**9,
            "registered_at_block": pytest.approx(0, abs=10**6),
        }
    )
    btcli.sends("tx", "start-call", "--netuid", 2)
    btcli.sends("subnets", "register", "--netuid", 2, wallet="charlie", shielded=True)
    mine = ("--hotkey", hot["alice"], "--netuid", 2)
    btcli.sends("stake", "add", *mine, "--amount", 10, shielded=True)
    shows = ("stake", "show", "--coldkey", ALICE, "--netuid", 2, "--hotkey")
    assert 9 < btcli(*shows, hot["alice"])["stake_amount"] < 10  # at a price of one TAO, less its slippage and fee
    btcli.sends("tx", "add-stake-limit", *mine, "--amount", 1, "--limit-price-rao", 10**12, "--no-mev-shield")
    btcli.sends("stake", "remove", *mine, "--amount", 2, "--no-mev-shield")
    move = ("--origin-hotkey", hot["alice"], "--dest-hotkey", hot["charlie"], "--netuid", 2, "--amount", 1)
    btcli.sends("stake", "move", *move, "--no-mev-shield")
    btcli.sends("axon", "set", "--netuid", 2, "--ip", "203.0.113.9", "--port", 8092, wallet="charlie")
    info = {"netuid": 2, "info": {"fields": [[{"Raw5": "0x" + b"hello".hex()}]]}}
    btcli.sends("call", "Commitments.set_commitment", "--args", json.dumps(info), "--key", "hotkey")
    btcli.sudo("AdminUtils.sudo_set_weights_set_rate_limit", netuid=2, weights_set_rate_limit=0)
    # Ten epochs to the reveal, where a commit for quicknet is dropped: these commands take longer than one epoch.
    btcli.sudo("AdminUtils.sudo_set_commit_reveal_weights_interval", netuid=2, interval=10)

    new_blocks(node, 400)  # an epoch of the usual tempo gives the permit
    subnets, shown, hyperparameters, metagraph, stakes, commitment = at_once(
        ("subnets", "list"),
        ("subnets", "show", 2),
        ("subnets", "hyperparameters", 2),
        ("subnets", "metagraph", 2),
        ("stake", "list", "-w", "alice"),
        ("query", "commitment", "--netuid", 2, "--hotkey", hot["alice"]),
    )
    assert {subnet["netuid"]: subnet["neurons"] for subnet in subnets}[2] == 2
    assert (shown["owner_coldkey"], shown["owner_hotkey"]) == (ALICE, hot["alice"])
    assert hyperparameters["max_allowed_uids"] == 256
    assert metagraph["hotkeys"] == [hot["alice"], hot["charlie"]]
    assert metagraph["coldkeys"] == [ALICE, CHARLIE]
    served = metagraph["axons"][1]
    assert (served["ip"], served["port"]) == (int(ipaddress.ip_address("203.0.113.9")), 8092)
    assert commitment["data"] == "hello"
    moved = {row["hotkey"]: row for row in stakes}[hot["charlie"]]
    assert moved["netuid"] == 2 and moved["stake_amount"] >= 1  # an epoch may have paid its hotkey on top
    assert {row["hotkey"]: row for row in stakes}[hot["alice"]]["stake_amount"] > 200  # ten, and an epoch's dividends

    # Sealed for a later block, then in the clear.
    committed = btcli.sends("weights", "commit", "--netuid", 2, "--uids", 1, "--weights", 1)
    assert committed["data"]["reveal_round"] > 0
    btcli.sudo("AdminUtils.sudo_set_commit_reveal_weights_enabled", netuid=2, enabled=False)
    btcli.sends("weights", "set", "--netuid", 2, "--uids", 1, "--weights", 1)
    pending, weights = at_once(
        ("query", "timelocked-weight-commits", "--netuid", 2), ("query", "weights", "--netuid", 2)
    )
    (commits,) = pending.values()
    assert [(commit["hotkey"], commit["reveal_round"]) for commit in commits] == [
        (hot["alice"], committed["data"]["reveal_round"])
    ]
    assert weights == {"0": {"1": 1.0}}
