"""The chain's commands, called as the `raytensor` command calls them, on a real node and real key files."""

import json
import os
import pty
import subprocess
import sys
import time

import bittensor_core
import pytest

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import Transfer
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey, WalletKey
from raytensor.chain.writer.journal import Extrinsic, Journal, Sent
from raytensor.cli import main
from raytensor.commands import options, output
from raytensor.commands.metagraph import metagraph_main
from raytensor.commands.register import register_main
from raytensor.commands.stake import stake_main
from raytensor.commands.subnets import subnets_main
from raytensor.commands.transfer import transfer_main
from raytensor.commands.wallet import wallet_main
from raytensor.commands.weights import weights_main
from raytensor.errors import ConfigError

RAO = 10**9
OWNER, VALIDATOR, MINER = (DevKey(f"//cmd//{role}//hot") for role in ("owner", "validator", "miner"))
COLD = {role: DevKey(f"//cmd//{role}//cold") for role in ("owner", "validator", "miner")}


pytestmark = pytest.mark.usefixtures("no_wallet")


@pytest.fixture(scope="module")
def subnet(node, shared_blocks):
    """A subnet with one validator and one miner, after the epoch that gives the permit."""
    neurons = [
        Neuron(role, role, hotkey, COLD[role], stake * RAO)
        for role, hotkey, stake in (("owner", OWNER, 0), ("validator", VALIDATOR, 500), ("miner", MINER, 0))
    ]
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, SubnetSpec(neurons, tempo=4))
        shared_blocks.up_to(read_metagraph(client, made.netuid).next_epoch_block + 5)
    return made


# Options


@pytest.mark.parametrize(
    "text, rao",
    [("1", RAO), ("0.000000001", 1), ("12.5", 12_500_000_000), ("9007199.254740993", 9_007_199_254_740_993), ("0", 0)],
)
def test_amounts_are_exact(text, rao):
    assert options.tao(text) == rao
    assert options.tao(output.tao(rao).replace(",", "")) == rao


@pytest.mark.parametrize(
    "text", ["1e9", "-1", "1.0000000001", ".5", "1.", "1,5", "NaN", "inf", "99999999999", "", "１"]
)
def test_amounts_that_are_none_are_refused(text, capsys):
    assert transfer_main([COLD["miner"].ss58, text, "-w", "//Alice", "--yes"]) == 2


@pytest.mark.parametrize("num_bytes", [31, 32, 33])
def test_a_transfer_to_a_public_key_in_hexadecimal_is_refused(num_bytes, capsys):
    key = "0x" + "ab" * num_bytes
    assert transfer_main([key, "1", "-w", "//Alice", "-n", "ws://127.0.0.1:9", "--yes"]) == 2
    why = "a public key in hexadecimal is no address: give the ss58 address, as 5F3sa2TJ..."
    assert f"'{key}' is not an address: {why}" in capsys.readouterr().err


def test_shares_of_a_price():
    assert [options.share(text) for text in ("5%", "0.05", "0", "0.5%", "99.9999%")] == [
        50_000,
        50_000,
        0,
        5_000,
        999_999,
    ]
    for bad in ("100%", "1", "-1%", "five"):
        with pytest.raises(Exception, match="share below 1"):
            options.share(bad)


def test_the_network_is_named_as_bittensors_users_do(monkeypatch):
    parser = options.parser("x", "x", "")
    options.add_network(parser)
    asked = lambda *argv: options.network(parser.parse_args(argv))  # noqa: E731
    assert asked() == ["finney"] and asked("--network", "test") == ["test"]
    assert asked("-n", "ws://a:1, ws://b:2") == ["ws://a:1", "ws://b:2"]
    monkeypatch.setenv("BT_NETWORK", "test")
    for name in ("--network", "--endpoint", "--subtensor.network", "--subtensor.chain_endpoint"):
        assert asked() == ["test"] and asked(name, "local") == ["local"]
    assert "--endpoint" not in parser.format_help()
    monkeypatch.setenv("BT_CHAIN_ENDPOINT", "ws://c:3")
    with pytest.raises(ValueError, match="unset one"):
        asked()
    monkeypatch.setenv("BT_NETWORK", "local")
    assert asked() == ["ws://c:3"]
    typed = ["netuids=[1]", "hotkeys=[//Alice]"]
    cfg = config.compose("validate", [*options.job_settings(), *typed])
    assert (cfg.chain.network, cfg.wallet_path) == ("ws://c:3", os.environ["BT_WALLET_PATH"])
    assert config.compose("validate", [*options.job_settings(), *typed, "chain.network=test"]).chain.network == "test"
    assert options.job_settings({}) == []


def test_every_command_teaches(capsys):
    for name in ("wallet", "transfer", "stake", "register", "subnets", "metagraph", "weights"):
        assert main([name, "--help"]) == 0
        told = capsys.readouterr().out
        assert "examples:" in told and f"raytensor {name}" in told
        assert main([name, "--no-such-option"]) == 2
    for command, names in (
        ("wallet", "create regen list show balance sign verify"),
        ("stake", "add remove move swap transfer unstake-all list take children"),
        ("weights", "status set commitments reveal"),
    ):
        for name in names.split():
            assert main([command, name, "--help"]) == 0
            assert f"examples:\n  raytensor {command} {name}" in capsys.readouterr().out


# Accounts


def test_an_address_is_also_the_name_of_a_key(tmp_path, ask):
    for name in ("alice", "bob"):
        ask(wallet_main, "create", "-w", name, "-H", "h1", "--no-password", "--phrase-file", tmp_path / name)
    args = options.parser("x", "x", "")
    options.add_wallet(args)
    args = args.parse_args(["-w", "alice"])
    path = str(tmp_path / "wallets")
    bob, hot = WalletKey("bob", None, path).ss58, WalletKey("bob", "h1", path).ss58
    assert options.account(args, "bob", hotkey=False) == bob
    assert options.account(args, "bob/h1", hotkey=False) == options.account(args, "bob/h1", hotkey=True) == hot
    assert options.account(args, "h1", hotkey=True) == WalletKey("alice", "h1", path).ss58
    assert options.account(args, "//Alice", hotkey=False) == DevKey("//Alice").ss58
    assert options.account(args, bob, hotkey=True) == bob
    raw = bittensor_core.ss58_decode(bob)
    wrong = [f"0x{bytes(raw).hex()}00", f"0x{bytes(raw).hex()}", bittensor_core.ss58_encode(bytes(raw), 0)]
    for text in (*wrong, bob[:-1] + ("y" if bob[-1] == "x" else "x"), "carol", "bob/h2", "../bob", "bob/", "/h1", ""):
        with pytest.raises(ConfigError):
            options.account(args, text, hotkey=False)


# Wallets


def test_a_wallet_is_made_listed_shown_and_restored(tmp_path, capsys, ask, monkeypatch):
    (tmp_path / "pw").write_text("a good password\n")
    (tmp_path / "pw").chmod(0o600)
    args = ["-w", "w1", "--password-file", tmp_path / "pw"]
    assert wallet_main(["create", "-w", "w1"]) == 2  # no terminal: the phrase has nowhere to go
    assert "--phrase-file" in capsys.readouterr().err and not (tmp_path / "wallets").exists()
    status, told = ask(wallet_main, "create", *args, "--phrase-file", tmp_path / "phrase")
    assert status == 0 and told["created"]["coldkey"]["encrypted"] and not told["created"]["hotkey"]["encrypted"]
    phrases = (tmp_path / "phrase").read_text()
    assert not any(line.split(": ")[1] in json.dumps(told) for line in phrases.splitlines())
    assert (tmp_path / "phrase").stat().st_mode & 0o777 == 0o600
    cold = WalletKey("w1", None, str(tmp_path / "wallets"), str(tmp_path / "pw"))
    assert cold.open().ss58 == told["created"]["coldkey"]["ss58"]
    hot = told["created"]["hotkey"]["ss58"]

    def known(name, address):
        return {"name": name, "ss58": address, "trouble": None}

    status, listed = ask(wallet_main, "list")
    assert listed["wallets"] == [{**known("w1", cold.ss58), "hotkeys": [known("default", hot)]}]
    status, shown = ask(wallet_main, "show", "-w", "w1")
    assert [(k["key"], k["ss58"], k["encrypted"], k["mode"]) for k in shown["keys"]] == [
        ("coldkey", cold.ss58, True, "600"),
        ("hotkeys/default", hot, False, "600"),
    ]

    assert wallet_main(["create", *map(str, args), "--phrase-file", str(tmp_path / "p2")]) == 1
    assert "--overwrite replaces it" in capsys.readouterr().err and not (tmp_path / "p2").exists()
    for kind, address in (("coldkey", cold.ss58), ("hotkey", hot)):
        again = ["-w", "w2", "--key", kind, "--phrase-file", tmp_path / "phrase", "--no-password"]
        status, back = ask(wallet_main, "regen", *again)
        assert status == 0 and back["restored"]["ss58"] == address
    status, watched = ask(wallet_main, "regen", "-w", "w3", "--ss58", cold.ss58)
    assert status == 0 and WalletKey("w3", None, str(tmp_path / "wallets")).ss58 == cold.ss58
    assert wallet_main(["regen", "-w", "w4"]) == 2  # nobody to ask for the phrase
    assert wallet_main(["show", "-w", "../x"]) == 2


def test_messages_are_signed_and_verified(ask, capsys):
    who = ["-w", "//Alice", "-H", "//Alice"]
    status, told = ask(wallet_main, "sign", *who, "hello")
    alice = bittensor_core.Keypair(ss58_address=told["ss58"])
    assert status == 0 and alice.verify(b"hello", bytes.fromhex(told["signature"][2:]))
    check = ["--ss58", told["ss58"], "--signature"]
    assert ask(wallet_main, "verify", "hello", *check, told["signature"]) == (0, {"ss58": told["ss58"], "valid": True})
    assert ask(wallet_main, "verify", "hallo", *check, told["signature"])[0] == 1
    assert ask(wallet_main, "verify", "hello", *check, "0x1234")[0] == 1
    assert ask(wallet_main, "verify", "hello", *check, "xyz")[0] == 2


def on_terminal(argv, typed, env, timeout_s=60):
    """Runs the command with a terminal of its own; what it printed, and its status."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "raytensor", *map(str, argv)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | env)
    os.close(theirs)
    os.write(ours, typed.encode())
    said, deadline = b"", time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        said += chunk
    status = process.wait(timeout=timeout_s)
    os.close(ours)
    return said.decode(), status


def test_at_a_terminal_the_phrase_is_shown_once(tmp_path):
    said, status = on_terminal(["wallet", "create", "-w", "t", "--no-password"], "", {"BT_WALLET_PATH": str(tmp_path)})
    assert status == 0
    for name in ("coldkey", "hotkeys/default"):
        phrase = json.loads((tmp_path / "t" / name).read_text())["secretPhrase"]
        assert said.count(phrase) == 1


# Money


def test_a_dry_run_shows_fee_and_effect_and_opens_no_key(node, client, payer, fresh, capsys, ask):
    dest = fresh("dest").ss58
    status, told = ask(transfer_main, dest, "1.5", "-w", payer.uri, "-n", node, "--dry-run")
    assert status == 0 and told["receipt"] is None
    plan = told["plan"]
    assert plan["call"] == "Balances.transfer_keep_alive" and plan["signer"] == payer.ss58 and plan["fee_rao"] > 0
    assert plan["effect"] == {
        "amount_rao": 1_500_000_000,
        "dest": dest,
        "balance_rao": 100 * RAO,
        "dest_balance_rao": 0,
    }
    assert transfer_main([dest, "1.5", "-w", payer.uri, "-n", node, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "amount               1.5 TAO" in said and "nothing was sent" in said
    assert client.balance(dest) == 0 and client.account_nonce(payer.ss58) == 0


def test_money_moves_only_after_a_yes(node, client, payer, fresh, capsys, ask, tmp_path):
    dest = fresh("dest").ss58
    order = [dest, "1", "-w", payer.uri, "-n", node]
    assert transfer_main(order) == 2 and "add --yes" in capsys.readouterr().err
    assert client.account_nonce(payer.ss58) == 0
    status, told = ask(transfer_main, *order, "--yes", "--id", "invoice-7")
    assert status == 0 and told["receipt"]["fate"] == "included" and told["receipt"]["fee_rao"] > 0
    assert ask(transfer_main, *order, "--yes", "--id", "invoice-7") == (0, {"plan": None, "receipt": told["receipt"]})
    assert client.balance(dest) == RAO and client.account_nonce(payer.ss58) == 1  # paid once
    assert ask(transfer_main, dest, "2", *order[2:], "--yes", "--id", "invoice-7")[0] == 2  # the name is taken
    events = [json.loads(line)["event"] for line in (tmp_path / "home" / "audit.jsonl").read_text().splitlines()]
    assert events == ["sent", "receipt"]


def test_an_order_whose_fate_was_not_seen_is_found_by_its_name(node, client, payer, fresh, ask):
    dest = fresh("dest").ss58
    order = [dest, "99", "-w", payer.uri, "-n", node, "--yes"]
    status, told = ask(transfer_main, *order, "--wait", "0.01", "--id", "first")
    # Unknown, unless a block came within that hundredth of a second.
    assert (status, told["receipt"]["fate"]) in ((1, "unknown"), (0, "included"))
    client.wait_for_block(client.head().number + 2, timeout_s=120)
    status, told = ask(transfer_main, *order, "--id", "first")  # the balance is gone, and the order is known
    assert status == 0 and told["receipt"]["fate"] == "included"
    assert client.balance(dest) == 99 * RAO and client.account_nonce(payer.ss58) == 1


def test_an_order_without_a_known_fate_keeps_the_next_one_back(node, client, payer, fresh, ask, tmp_path):
    intent = Transfer(signer=payer.ss58, dest=fresh("dest").ss58, value=RAO, intent_id="earlier")
    born = client.finalized()
    era = Era.mortal(born.number, 4096)
    signed = client.sign(
        intent.call(), payer.open(), nonce=1, era=era
    )  # waits for nonce 0: in no block, and not refused
    journal = Journal(tmp_path / "home" / f"{client.genesis[2:10]}-{payer.ss58}.db", client.genesis)
    journal.add_intents([intent])
    shape = '{"call": "Balances.transfer_keep_alive", "args": {}}'
    journal.add_extrinsic(
        Extrinsic(signed.hash, payer.ss58, 1, era.birth, era.death, signed.data, shape, ("earlier",), Sent.POOLED)
    )
    journal.close()
    status, told = ask(transfer_main, intent.dest, "1", "-w", payer.uri, "-n", node, "--yes")
    assert (status, told["error"]["name"]) == (1, "FateUnknown") and f"block {era.death}" in told["error"]["message"]
    assert client.balance(intent.dest) == 0


def test_at_a_terminal_the_answer_counts(node, client, payer, fresh, tmp_path):
    dest = fresh("dest").ss58
    env = {"RAYTENSOR_HOME": str(tmp_path)}
    said, status = on_terminal(["transfer", dest, "1", "-w", payer.uri, "-n", node], "no\n", env)
    assert "Send it? [y/N]" in said and "NotConfirmed" in said and status == 1
    assert client.balance(dest) == 0
    said, status = on_terminal(["transfer", dest, "1", "-w", payer.uri, "-n", node], "y\n", env)
    assert status == 0 and "done in block" in said
    assert client.balance(dest) == RAO


def test_refusals_name_the_error_and_what_to_do(node, payer, fresh, capsys, ask, tmp_path):
    dest = fresh("dest").ss58
    order = ["-w", payer.uri, "-n", node, "--yes"]
    assert transfer_main([dest, "100", *order]) == 1
    said = capsys.readouterr().err
    assert "InsufficientBalance" in said and "fix: fund the signing account" in said
    status, told = ask(transfer_main, dest, "100", *order)
    assert (status, told["error"]["name"]) == (1, "InsufficientBalance")
    (tmp_path / "policy.toml").write_text("transfers = true\nmax_spend_rao = 500_000_000\n")
    status, told = ask(transfer_main, dest, "1", *order, "--policy", tmp_path / "policy.toml")
    assert status == 1 and told["receipt"]["error"] == "PolicyDenied"
    assert "max_spend_rao 500000000" in told["receipt"]["action"]
    assert transfer_main(["5nonsense", "1", *order]) == 2
    status, told = ask(transfer_main, dest, "1", "-w", "nobody", "-n", node, "--yes")
    assert status == 1 and told["error"]["name"] == "WalletError"
    assert ask(transfer_main, dest, "1", "-w", "//Alice", "-n", "ws://127.0.0.1:9", "--yes")[1]["error"]["name"] == (
        "ChainUnavailable"
    )


def test_stake_is_added_listed_moved_and_removed(node, client, payer, subnet, ask):
    who = ["--netuid", subnet.netuid, "--hotkey", VALIDATOR.ss58, "-w", payer.uri, "-n", node]
    status, told = ask(stake_main, "add", "2.5", *who, "--yes")
    assert status == 0 and told["receipt"]["fate"] == "included", told
    effect = told["plan"]["effect"]
    assert told["plan"]["call"] == "SubtensorModule.add_stake_limit"
    assert effect["price_limit_rao"] == -(-effect["price_rao"] * 100 // 95)
    status, listed = ask(stake_main, "list", "-w", payer.uri, "-n", node)
    (held,) = listed["stakes"]
    assert held["hotkey"] == VALIDATOR.ss58 and held["netuid"] == subnet.netuid
    assert abs(held["alpha_rao"] - effect["gets_alpha_rao"]) / held["alpha_rao"] < 0.01
    balance = ask(wallet_main, "balance", "-w", payer.uri, "-n", node)[1]
    assert balance["free_rao"] == client.balance(payer.ss58) < 98 * RAO
    assert balance["total_rao"] == balance["free_rao"] + balance["staked_value_rao"] > 99 * RAO

    status, told = ask(stake_main, "move", "1", *who, "--to-hotkey", MINER.ss58, "--yes")
    assert status == 0 and told["plan"]["effect"]["slippage"] == "0.0000%"
    status, told = ask(stake_main, "remove", "--all", *who, "--yes", "--id", "exit")
    assert status == 0 and told["receipt"]["fate"] == "included", told
    assert ask(stake_main, "remove", "--all", *who, "--yes", "--id", "exit")[1]["receipt"] == told["receipt"]
    (left,) = ask(stake_main, "list", "-w", payer.uri, "-n", node)[1]["stakes"]
    assert left["hotkey"] == MINER.ss58 and abs(left["alpha_rao"] - RAO) < RAO // 100
    assert ask(stake_main, "remove", "1", *who, "--yes")[1]["error"]["name"] == "NotEnoughStake"
    assert ask(stake_main, "move", "1", *who, "--yes")[0] == 2


def test_registering_is_capped(node, client, payer, subnet, fresh, ask):
    hotkey = fresh("hot").ss58
    order = ["--netuid", subnet.netuid, "--hotkey", hotkey, "-w", payer.uri, "-n", node, "--yes"]
    status, told = ask(register_main, *order, "--max-burn", "0.000000001")
    assert (status, told["error"]["name"]) == (1, "RegistrationPriceLimitExceeded")
    status, told = ask(register_main, *order)
    assert status == 0 and told["plan"]["call"] == "SubtensorModule.register_limit"
    assert client.query("SubtensorModule", "Uids", [subnet.netuid, hotkey]) is not None
    status, told = ask(register_main, *order)
    assert (status, told["error"]["name"]) == (1, "HotKeyAlreadyRegisteredInSubNet")


# Reading


def test_subnets_and_metagraph(node, subnet, ask, capsys, tmp_path):
    status, told = ask(subnets_main, subnet.netuid, "-n", node)
    (row,) = told["subnets"]
    assert (row["netuid"], row["tempo"], row["commit_reveal"]) == (subnet.netuid, 4, False)
    assert row["owner"] == COLD["owner"].ss58 and row["next_epoch_block"] > told["block"]
    assert ask(subnets_main, "998", "-n", node)[0] == 1
    assert subnets_main(["-n", node]) == 0 and "neurons" in capsys.readouterr().out
    assert ask(subnets_main, "0", "-n", node)[1]["subnets"][0]["next_epoch_block"] is None  # root has no epochs
    assert subnets_main(["0", "-n", node]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[3] == "-"
    assert metagraph_main(["0", "-n", node]) == 0
    assert "next epoch in - blocks" in capsys.readouterr().out
    status, told = ask(metagraph_main, subnet.netuid, "-n", node, "--sort", "stake", "--top", "1")
    assert [n["hotkey"] for n in told["neurons"]] == [VALIDATOR.ss58] and told["num_neurons"] >= 3
    out = tmp_path / "graph.parquet"
    assert metagraph_main([str(subnet.netuid), "-n", node, "--out", str(out)]) == 0 and out.exists()
    assert metagraph_main([str(subnet.netuid), "-n", node]) == 0
    assert "next epoch in" in capsys.readouterr().out
    assert metagraph_main(["999", "-n", node]) == 1


def test_weights_are_set_and_their_age_is_told(node, client, subnet, ask, capsys, tmp_path):
    who = ["--netuid", subnet.netuid, "-w", COLD["validator"].uri, "-H", VALIDATOR.uri, "-n", node]
    order = [f"{MINER.ss58}=3", f"uid:{subnet.uids[OWNER.ss58]}=1"]
    status, told = ask(weights_main, "set", *order, *who, "--dry-run")
    pairs = dict(zip(told["plan"]["effect"]["uids"], told["plan"]["effect"]["values"]))
    assert status == 0 and pairs == {subnet.uids[MINER.ss58]: 65535, subnet.uids[OWNER.ss58]: 21845}
    (tmp_path / "weights.json").write_text(json.dumps({MINER.ss58: 3, f"uid:{subnet.uids[OWNER.ss58]}": 1}))
    status, told = ask(weights_main, "set", "--file", tmp_path / "weights.json", *who)
    assert status == 0 and told["receipt"]["fee_rao"] == 0, told
    assert dict(read_metagraph(client, subnet.netuid).weights[subnet.uids[VALIDATOR.ss58]]) == pairs
    for bad in (["uid:99=1"], ["5x=1"], [f"{MINER.ss58}=-1"], [f"{MINER.ss58}=nan"], [order[0], order[0]], []):
        assert ask(weights_main, "set", *bad, *who)[0] == 2, bad
    miner = ["-w", COLD["miner"].uri, "-H", MINER.uri, "-n", node]
    status, told = ask(weights_main, "set", f"{VALIDATOR.ss58}=1", "--netuid", 999, *miner)
    assert status == 2 or told["error"]["name"] == "MechanismDoesNotExist"

    journals = [str(path) for path in (tmp_path / "home").glob("*.db")]
    status, told = ask(weights_main, "status", *who, "--overdue", "100", "--journal", journals[0])
    (health,) = told["weights"]
    assert status == 0 and health["permit"] and not health["overdue"] and health["cause"] == ""
    assert health["next_block"] == told["block"] + 1 and health["age_blocks"] == told["block"] - health["last_update"]
    client.wait_for_block(health["last_update"] + 5, timeout_s=120)
    status, told = ask(weights_main, "status", *who, "--overdue", "0.5", "--journal", journals[0])
    (health,) = told["weights"]
    assert status == 1 and health["overdue"] and health["cause"].startswith("none were submitted since those of")
    elsewhere = ["--state", str(tmp_path / "elsewhere")]  # no journal there
    assert weights_main(["status", "--hotkey", VALIDATOR.ss58, "-n", node, "--overdue", "0.5", *elsewhere]) == 1
    said = capsys.readouterr().out
    assert "OVERDUE" in said and "no weights were handed to the writer" in said
    assert weights_main(["status", "--hotkey", DevKey("//cmd//nobody").ss58, "-n", node]) == 0
