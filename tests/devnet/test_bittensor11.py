"""bittensor 11, unchanged, from an environment of its own, against a real node: its SDK and `btcli`.

RAYTENSOR_BITTENSOR_PYTHON names the interpreter of that environment, as in
`python -m venv bt && bt/bin/pip install 'bittensor==11.3.0'`.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from bittensor_core import Keypair
from nodes import Node, RawClient, wait_until

PYTHON = os.environ.get("RAYTENSOR_BITTENSOR_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="RAYTENSOR_BITTENSOR_PYTHON names no interpreter that has bittensor 11"),
]
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
        "HOME": str(home), "BT_NETWORK": endpoint, "BT_WALLET_PATH": str(home / "wallets"),
        "BT_FALLBACK_ENDPOINTS": "none", "BT_ARCHIVE_ENDPOINTS": "none",
    }  # fmt: skip


def test_a_subnets_life_through_the_sdk(node, tmp_path):
    script = Path(__file__).with_name("bittensor11_session.py")
    ran = subprocess.run(
        [PYTHON, script, node.endpoint], env=environment(tmp_path, node.endpoint), capture_output=True, text=True,
        timeout=TIMEOUT_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout)
    assert said["received_rao"] == 5 * 10**9
    assert said["max_burn"] == 10**9
    assert (said["register_validator"], said["register_miner"]) == (1, 2)
    assert said["root_stake_rao"] == 7 * 10**9
    assert said["removed_rao"] == 2 * 10**9
    assert said["moved_rao"] == 10**9
    assert "hello" in said["commitment"]
    assert said["pending_commits"] == 1
    assert said["weights"] == {"1": {"2": 1.0}}
    assert said["metagraph"] == {OWNER: [0, None], VALIDATOR: [1, None], MINER: [2, "203.0.113.7:8091"]}


def block_number(node: Node) -> int:
    client = RawClient(node.endpoint)
    try:
        return int(client.call("chain_getHeader")["number"], 16)
    finally:
        client.close()


class Btcli:
    """`btcli --json ...` of that environment; a refusal fails the test."""

    def __init__(self, node: Node, home: Path) -> None:
        self.program = Path(PYTHON).with_name("btcli")
        self.env = environment(home, node.endpoint)

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
    for name, seed in SEEDS.items():
        btcli("wallet", "regen-coldkey", "-w", name, "--seed", seed, "--no-password")
    hot = {name: btcli("wallet", "new-hotkey", "-w", name, "-H", "default")["ss58"] for name in SEEDS}

    assert btcli("wallet", "balance", BOB)["free_tao"] == 1_000_000
    btcli.sends("wallet", "transfer", "--dest", BOB, "--amount", 5)
    balance = btcli("wallet", "balance", BOB)
    assert (balance["free_tao"], balance["stake_positions"]) == (1_000_005, 0)

    cost = btcli("subnets", "create-cost")["tao"]
    assert btcli.sends("subnets", "create")["data"] == pytest.approx({
        "netuid": 2, "registration_mode": "immediate", "registration_price_rao": cost * 10**9,
        "registered_at_block": pytest.approx(0, abs=10**6),
    })  # fmt: skip
    btcli.sends("tx", "start-call", "--netuid", 2)
    btcli.sends("subnets", "register", "--netuid", 2, wallet="charlie", shielded=True)
    btcli.sends("stake", "add", "--hotkey", hot["alice"], "--netuid", 2, "--amount", 10, shielded=True)
    btcli.sends("stake", "remove", "--hotkey", hot["alice"], "--netuid", 2, "--amount", 2, "--no-mev-shield")
    move = ("--origin-hotkey", hot["alice"], "--dest-hotkey", hot["charlie"], "--netuid", 2, "--amount", 1)
    btcli.sends("stake", "move", *move, "--no-mev-shield")
    moved_in = block_number(node)

    subnets = {subnet["netuid"]: subnet for subnet in btcli("subnets", "list")}
    assert subnets[2]["neurons"] == 2
    shown = btcli("subnets", "show", 2)
    assert (shown["owner_coldkey"], shown["owner_hotkey"]) == (ALICE, hot["alice"])
    assert btcli("subnets", "hyperparameters", 2)["max_allowed_uids"] == 256
    metagraph = btcli("subnets", "metagraph", 2)
    assert metagraph["hotkeys"] == [hot["alice"], hot["charlie"]]
    assert metagraph["coldkeys"] == [ALICE, CHARLIE]
    moved = [row for row in btcli("stake", "list", "-w", "alice") if row["hotkey"] == hot["charlie"]]
    assert [row["netuid"] for row in moved] == [2] and moved[0]["available_amount"] > 0.99  # dividends may have come

    # 100 blocks after its registration, or after the weights that it set before, a hotkey may set weights.
    wait_until(lambda: block_number(node) > moved_in + 100, timeout_s=120, what="the rate limit's end")
    assert "reveal_round" in btcli.sends("weights", "set", "--netuid", 2, "--uids", 1, "--weights", 1)["data"]
