"""Transfers: everything to the rao, who may receive, and what --finalized waits for; on a real node."""

from __future__ import annotations

import json

import bittensor_core
import pytest

from raytensor.chain import ss58
from raytensor.chain.intents import Transfer, TransferAll
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.policy import Policy, read_policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands import options
from raytensor.commands.register import register_main
from raytensor.commands.transfer import transfer_main
from raytensor.errors import ConfigError

RAO, ALICE = 10**9, DevKey("//Alice")
DEPOSIT = 500


pytestmark = pytest.mark.usefixtures("no_wallet")


@pytest.fixture
def payer(fresh, fund):
    """A development key with 3 TAO that only this test uses."""
    ref = fresh("payer")
    fund(ref, 3 * RAO)
    return ref


@pytest.mark.parametrize("extra, left", [([], DEPOSIT), (["--allow-death"], 0)])
def test_everything_is_sent_to_the_rao(node, client, payer, fresh, ask, extra, left):
    dest = fresh("dest").ss58
    order = [dest, "--all", *extra, "-w", payer.uri, "-n", node]
    status, told = ask(transfer_main, *order, "--dry-run")
    effect = told["plan"]["effect"]
    assert status == 0 and told["plan"]["call"] == "Balances.transfer_all"
    assert effect["amount_rao"] == 3 * RAO - told["plan"]["fee_rao"] - left and effect["balance_after_rao"] == left
    status, told = ask(transfer_main, *order, "--yes", "--id", "all")
    assert status == 0 and told["receipt"]["fee_rao"] == told["plan"]["fee_rao"]
    assert (client.balance(dest), client.balance(payer.ss58)) == (effect["amount_rao"], left)
    assert ask(transfer_main, *order, "--yes", "--id", "all")[1]["receipt"] == told["receipt"], "paid once"
    status, told = ask(transfer_main, *order, "--yes")
    assert (status, told["error"]["name"]) == (1, "InsufficientBalance") and "nothing remains" in told["error"][
        "message"
    ]


def test_all_and_an_amount_exclude_each_other(node, fresh, ask, capsys):
    dest, who = fresh("dest").ss58, ["-w", "//Alice", "-n", node, "--yes"]
    assert transfer_main([dest, *who]) == 2 and transfer_main([dest, "1", "--all", *who]) == 2
    assert transfer_main([dest, "1", "--allow-death", *who]) == 2 and "with --all" in capsys.readouterr().err
    assert transfer_main([ALICE.ss58, "--all", *who]) == 2 and "pay itself" in capsys.readouterr().err


def test_a_policy_caps_a_transfer_of_everything(node, payer, fresh, tmp_path):
    policy = Policy(transfers=True, max_spend_rao=2 * RAO)
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy))
    (receipt,) = writer.submit([TransferAll(signer=payer.ss58, dest=fresh("dest").ss58)])
    writer.close()
    assert receipt.error == "PolicyDenied" and f"it spends {3 * RAO} rao" in receipt.action


class LateFinality(ChainClient):
    """A node's client whose finality lags until it was asked twice more."""

    asked = 0

    def finalized(self):
        self.asked += 1
        final = super().finalized()
        return final if self.asked > 2 else self.header(self.block_hash(max(0, final.number - 8)))


def test_a_final_transfer_says_in_which_block(node, client, payer, fresh, capsys, monkeypatch):
    dest = fresh("dest").ss58
    monkeypatch.setattr("raytensor.commands.transfer.ChainClient", LateFinality)
    order = [dest, "1", "-w", payer.uri, "-n", node, "--yes", "--finalized", "--id", "x"]
    assert transfer_main([*order, "--json"]) == 0
    said = capsys.readouterr()
    receipt = json.loads(said.out)["receipt"]
    final = receipt["finalized"]
    assert final["block"] == receipt["block"] <= client.finalized().number
    assert final["hash"] == client.block_hash(final["block"])
    assert receipt["extrinsic_hash"] in client.block(final["hash"])[1]
    assert f"in block {receipt['block']}; final up to block " in said.err, "it says what it waits for"
    assert transfer_main(order) == 0, "the same order again: nothing is sent, and the block is still final"
    assert f"final in block {final['block']}, {final['hash']}" in capsys.readouterr().out
    assert client.balance(dest) == RAO


def test_a_price_cap_is_not_what_is_paid(node, client, payer, fresh, ask):
    """3 TAO suffice for a price far below, whatever --max-burn allows."""
    hotkey = fresh("hot").ss58
    order = ["--netuid", 1, "--hotkey", hotkey, "-w", payer.uri, "-n", node, "--yes", "--max-burn", "100"]
    burn = client.query("SubtensorModule", "Burn", [1])
    assert burn < 2 * RAO
    status, told = ask(register_main, *order)
    assert status == 0 and told["plan"]["effect"]["price_at_most_rao"] == 100 * RAO, told
    assert client.query("SubtensorModule", "Uids", [1, hotkey]) is not None
    assert client.balance(payer.ss58) >= 3 * RAO - burn * 2


# Who may receive


def account(*argv):
    parser = options.parser("x", "x", "")
    options.add_wallet(parser)
    parser.add_argument("dest")
    args = parser.parse_args(argv)
    return options.account(args, args.dest, hotkey=False)


def test_other_prefixes_and_hexadecimal_keys_need_a_flag():
    raw = ss58.decode(ALICE.ss58)
    for prefix in (0, 2, 42, 63, 64, 255, 1284, 16383):
        address = bittensor_core.ss58_encode(raw, prefix)
        assert ss58.decode(address, prefix) == raw
        assert account(address, "--ss58-prefix", str(prefix)) == ALICE.ss58
        if prefix != 42:
            with pytest.raises(ConfigError, match="ss58 address of Bittensor has"):
                account(address)
            with pytest.raises(ConfigError):
                account(ALICE.ss58, "--ss58-prefix", str(prefix))
    key = "0x" + raw.hex()
    assert account(key, "--hex-keys") == ALICE.ss58
    for bad in (key, key[:-1], key + "0"):
        with pytest.raises(ConfigError):
            account(bad, *([] if bad == key else ["--hex-keys"]))


@pytest.mark.parametrize("field", ["dest", "signer"])
def test_an_intent_with_another_form_of_address_is_refused(field):
    raw = ss58.decode(ALICE.ss58)
    for bad in ("0x" + raw.hex(), bittensor_core.ss58_encode(raw, 0), ALICE.ss58[:-1], ALICE.ss58 + " ", ""):
        with pytest.raises(ConfigError, match=f"Balances.transfer_keep_alive: {field}="):
            Transfer(**{"signer": ALICE.ss58, "dest": ALICE.ss58, "value": 1, field: bad}).check()


def test_a_policy_file_holds_addresses_of_bittensor_only(tmp_path):
    file, raw = tmp_path / "policy.toml", ss58.decode(ALICE.ss58)
    file.write_text(f'destinations = ["{ALICE.ss58}"]\n')
    assert read_policy(file).destinations == {ALICE.ss58}
    for bad in ("0x" + raw.hex(), bittensor_core.ss58_encode(raw, 0), "bob"):
        file.write_text(f'destinations = ["{ALICE.ss58}", "{bad}"]\n')
        with pytest.raises(ConfigError, match=f"policy destinations: '{bad}'"):
            read_policy(file)


class LiveChain(ChainClient):
    """A node's client to which the chain calls itself live, as finney does."""

    def rpc(self, method, params=(), **more):
        return "Live" if method == "system_chainType" else super().rpc(method, params, **more)


def test_development_keys_are_refused_on_a_live_chain(node, client, payer, fresh, ask, monkeypatch):
    bob = DevKey("//Bob").ss58
    order = ["1", "-w", payer.uri, "-n", node, "--yes"]
    assert ask(transfer_main, "//Bob", *order)[0] == 0, "a development chain"
    monkeypatch.setattr("raytensor.commands.transfer.ChainClient", LiveChain)
    before = client.balance(bob)
    for dest in ("//Bob", bob, "//some//path"):
        status, told = ask(transfer_main, dest, *order)
        assert status == 2 and "is a development key, which everybody can sign with" in told["error"]["message"]
    status, told = ask(transfer_main, fresh("other").ss58, *order)
    assert status == 2 and f"{payer.uri} is a development key" in told["error"]["message"], "to sign with, too"
    assert client.balance(bob) == before
