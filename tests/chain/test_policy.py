"""Policy: what is refused before it is written, on a real node, and the record of it."""

import json
import stat
import threading
import time

import pytest

from raytensor.chain.intents import (
    AddProxy,
    AddStake,
    AddStakeLimit,
    BurnedRegister,
    MoveStake,
    RegisterLimit,
    RemoveStake,
    RemoveStakeFullLimit,
    SetWeights,
    SwapStakeLimit,
    Transfer,
    TransferStake,
    UnstakeAll,
)
from raytensor.chain.reads.quotes import buy, fee, price, prices, slippage, spend, stakes
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.policy import Facts, Policy, read_policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.errors import ConfigError
from raytensor.types import Fate

RAO = 10**9
WHO, OTHER = DevKey("//policy//who").ss58, DevKey("//policy//other").ss58
GENESIS_SUBNET = 1

TRANSFERS = [
    Transfer(signer=WHO, dest=OTHER, value=RAO),
    TransferStake(
        signer=WHO, destination_coldkey=OTHER, hotkey=WHO, origin_netuid=1, destination_netuid=1, alpha_amount=1
    ),
]
UNSTAKING = [
    RemoveStake(signer=WHO, hotkey=WHO, netuid=1, amount_unstaked=1),
    UnstakeAll(signer=WHO, hotkey=WHO),
    RemoveStakeFullLimit(signer=WHO, hotkey=WHO, netuid=1),
    MoveStake(
        signer=WHO, origin_hotkey=WHO, destination_hotkey=OTHER, origin_netuid=1, destination_netuid=1, alpha_amount=1
    ),
    SwapStakeLimit(signer=WHO, hotkey=WHO, origin_netuid=1, destination_netuid=2, alpha_amount=1, limit_price=1),
]
HARMLESS = [
    SetWeights(signer=WHO, netuid=1, values=((OTHER, 1.0),)),
    AddStake(signer=WHO, hotkey=OTHER, netuid=1, amount_staked=RAO),
    BurnedRegister(signer=WHO, netuid=1, hotkey=OTHER),
]
PROXY = AddProxy(signer=WHO, delegate=OTHER)


@pytest.mark.parametrize(
    "policy, allowed",
    [
        (Policy(), HARMLESS),
        (Policy(transfers=True), HARMLESS + TRANSFERS),
        (Policy(unstaking=True), HARMLESS + UNSTAKING),
        (Policy(proxies=True), [*HARMLESS, PROXY]),
        (Policy(transfers=True, destinations=frozenset({WHO})), HARMLESS),
        (Policy(transfers=True, destinations=frozenset({OTHER})), HARMLESS + TRANSFERS),
        (Policy(netuids=frozenset({2}), transfers=True), [TRANSFERS[0]]),
        (Policy(netuids=frozenset({1}), unstaking=True), [*HARMLESS, UNSTAKING[0], UNSTAKING[2], UNSTAKING[3]]),
    ],
)
def test_kinds_subnets_and_destinations(policy, allowed):
    everything = HARMLESS + TRANSFERS + UNSTAKING + [PROXY]
    assert [i for i in everything if policy.forbids(i) is None] == allowed


def test_a_cap_holds_at_its_value_and_a_fact_that_is_missing_refuses():
    assert Policy(max_spend_rao=5).exceeds(Facts(spend_rao=5)) is None
    assert "max_spend_rao 5" in Policy(max_spend_rao=5).exceeds(Facts(spend_rao=6))
    assert "an unknown amount" in Policy(max_spend_rao=5).exceeds(Facts(spend_rao=None))
    assert Policy(max_spend_per_day_rao=9).exceeds(Facts(spend_rao=4), spent_rao=5) is None
    assert "within a day" in Policy(max_spend_per_day_rao=9).exceeds(Facts(spend_rao=5), spent_rao=5)
    assert Policy(max_spend_per_day_rao=9).exceeds(Facts(spend_rao=0), spent_rao=99) is None
    assert "max_fee_rao 1" in Policy(max_fee_rao=1).exceeds(Facts(fee_rao=2))
    assert Policy(max_slippage=0.02).exceeds(Facts(slippage=0.02)) is None
    assert "unbounded" in Policy(max_slippage=0.02).exceeds(Facts(slippage=None))
    assert Policy(max_slippage=0.02).exceeds(Facts(slippage=float("nan"))) is not None


def test_policy_files(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(f'transfers = true\nmax_spend_rao = 5_000_000_000\nnetuids = [1, 3]\ndestinations = ["{OTHER}"]\n')
    expected = Policy(transfers=True, max_spend_rao=5 * RAO, netuids=frozenset({1, 3}), destinations=frozenset({OTHER}))
    assert read_policy(file) == expected
    for text, word in (
        ("max_spend = 1", "no setting max_spend"),
        ("max_spend_rao = 1.5", "whole number of rao"),
        ("max_fee_rao = -1", "whole number of rao"),
        ("transfers = 1", "true or false"),
        ("max_slippage = 2", "from 0 to 1"),
        ('netuids = "1"', "write a list"),
        ("netuids = [", "not valid TOML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=word):
            read_policy(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_policy(tmp_path / "none.toml")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_writer_without_a_policy_moves_nothing_and_says_why(node, client, payer, fresh, tmp_path):
    dest = fresh("dest")
    audit = tmp_path / "audit.jsonl"
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(audit_path=audit))
    (receipt,) = writer.submit([Transfer(signer=payer.ss58, dest=dest.ss58, value=RAO, intent_id="t")])
    assert (receipt.fate, receipt.error) == (Fate.NOT_SENT, "PolicyDenied")
    assert receipt.action == "fix: the policy allows no transfers (transfers = false)"
    assert writer.counters()["submitted"] == 0
    writer.close()
    assert Journal(tmp_path / "j.db").intent("t") is None  # refused before it was written
    (line,) = lines(audit)
    assert (line["event"], line["intent_id"], line["error"]) == ("denied", "t", "PolicyDenied")
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_caps_of_spending_and_the_audit_of_what_was_sent(node, client, payer, fresh, tmp_path):
    dest, audit = fresh("dest"), tmp_path / "audit.jsonl"
    policy = Policy(transfers=True, max_spend_rao=2 * RAO, max_spend_per_day_rao=3 * RAO, max_fee_rao=RAO)

    def pay(value):
        return Transfer(signer=payer.ss58, dest=dest.ss58, value=value)

    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy, audit_path=audit))
    receipts = writer.submit([pay(2 * RAO), pay(2 * RAO + 1), pay(RAO)])
    assert [r.fate for r in receipts] == [Fate.INCLUDED, Fate.NOT_SENT, Fate.INCLUDED], receipts
    assert "over the policy's max_spend_rao" in receipts[1].action
    writer.close()
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy, audit_path=audit))
    (late,) = writer.submit([pay(1)])
    assert late.error == "PolicyDenied" and "within a day" in late.action  # another process, the same day
    again = writer.submit([Transfer(signer=payer.ss58, dest=dest.ss58, value=2 * RAO, intent_id=receipts[0].intent_id)])
    assert again == [receipts[0]]  # what was carried out has its receipt, whatever the policy says now
    writer.close()
    assert client.balance(dest.ss58) == 3 * RAO

    found = lines(audit)
    assert [line["event"] for line in found] == ["denied", "sent", "receipt", "receipt", "denied"]
    (sent,) = [line for line in found if line["event"] == "sent"]
    assert sent["signer"] == payer.ss58 and sent["call"] == "Utility.force_batch" and len(sent["intent_ids"]) == 2
    first = found[2]
    assert (first["nonce"], first["block"], first["fee_rao"]) == (0, receipts[0].block, receipts[0].fee_rao)
    assert first["extrinsic_hash"] == sent["extrinsic_hash"] and first["fate"] == "included"


def test_a_daily_cap_holds_when_callers_race(node, client, payer, fresh, tmp_path):
    """Sixteen threads ask for 1 TAO each at one moment; the cap allows three."""
    policy, num_threads = Policy(transfers=True, max_spend_per_day_rao=3 * RAO), 16
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy))
    together, receipts = threading.Barrier(num_threads), []

    def pay(number):
        together.wait(60)
        receipts.extend(writer.submit([Transfer(signer=payer.ss58, dest=fresh(f"dest{number}").ss58, value=RAO)]))

    threads = [threading.Thread(target=pay, args=(number,)) for number in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    writer.close()
    assert sorted(receipt.error or "" for receipt in receipts) == [""] * 3 + ["PolicyDenied"] * (num_threads - 3)
    assert sum(client.balance(fresh(f"dest{number}").ss58) for number in range(num_threads)) == 3 * RAO


def test_quotes_and_slippage_caps(node, client, payer, fresh, tmp_path):
    now = price(client, GENESIS_SUBNET)
    assert prices(client)[GENESIS_SUBNET] == now > 0
    little, much = buy(client, GENESIS_SUBNET, RAO // 100), buy(client, GENESIS_SUBNET, 50 * RAO)
    assert 0 <= little.slippage < 0.01 < much.slippage < 1
    assert abs(little.got - little.paid * RAO // now) / little.got < 0.01
    hotkey = fresh("hot").ss58
    burn = BurnedRegister(signer=payer.ss58, netuid=GENESIS_SUBNET, hotkey=hotkey)
    assert spend(client, burn) == client.query("SubtensorModule", "Burn", [GENESIS_SUBNET])
    assert fee(client, burn) > 0

    def stake(amount, **limit):
        kind = AddStakeLimit if limit else AddStake
        return kind(signer=payer.ss58, hotkey=hotkey, netuid=GENESIS_SUBNET, amount_staked=amount, **limit)

    assert slippage(client, stake(RAO, limit_price=2 * now)) == pytest.approx(0.5, rel=1e-6)
    assert slippage(client, stake(RAO, limit_price=now // 2)) == 0.0
    policy = Policy(max_slippage=0.02)
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy))
    denied = writer.submit([stake(50 * RAO), stake(RAO, limit_price=2 * now)])
    assert [r.error for r in denied] == ["PolicyDenied"] * 2 and "50.0000%" in denied[1].action
    assert writer.submit([burn])[0].fate is Fate.INCLUDED
    on_root = AddStake(signer=payer.ss58, hotkey=hotkey, netuid=0, amount_staked=RAO)
    (done,) = writer.submit([on_root])  # the root pool is stable: one for one
    assert done.fate is Fate.INCLUDED, done
    writer.close()
    (held,) = [one for one in stakes(client, payer.ss58) if one.netuid == 0]
    assert held.hotkey == hotkey and 0 < held.alpha_rao <= RAO


def test_a_clock_that_is_set_forward_does_not_free_the_daily_cap(node, payer, fresh, tmp_path, monkeypatch):
    policy = Policy(transfers=True, max_spend_per_day_rao=RAO)
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy))
    order = {"signer": payer.ss58, "dest": fresh("dest").ss58, "value": RAO}
    assert writer.submit([Transfer(**order)])[0].fate is Fate.INCLUDED
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3 * 86_400)
    (denied,) = writer.submit([Transfer(**order)])
    assert denied.error == "PolicyDenied" and "within a day" in denied.action
    writer.close()


def test_a_registration_counts_at_what_it_cost_and_not_at_its_limit(node, client, payer, fresh, tmp_path):
    price_rao = client.query("SubtensorModule", "Burn", [GENESIS_SUBNET])
    limit = 20 * price_rao
    policy = Policy(max_spend_per_day_rao=limit + 10 * price_rao)
    writer = ChainWriter(node, {payer.ss58: payer}, tmp_path / "j.db", WriterSettings(policy=policy))

    def register(name):
        facts = {"signer": payer.ss58, "netuid": GENESIS_SUBNET, "hotkey": fresh(name).ss58}
        return writer.submit([RegisterLimit(**facts, limit_price=limit)])[0]

    before = client.balance(payer.ss58)
    first = register("one")
    assert first.fate is Fate.INCLUDED, first
    cost = before - client.balance(payer.ss58) - first.fee_rao
    assert 0 < cost < 2 * price_rao
    second = register("two")
    assert second.fate is Fate.INCLUDED, second
    writer.close()
