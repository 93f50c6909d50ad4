"""Orders for other accounts by the commands: proxies and multisigs, judged by the chain."""

from __future__ import annotations

import pytest

from raytensor.chain.calls import Call
from raytensor.chain.rpc.events import Event, outcomes, skeleton
from raytensor.chain.ss58 import decode
from raytensor.chain.wallet import DevKey
from raytensor.commands.generated import call_main
from raytensor.commands.proxy import proxy_main
from raytensor.commands.sender import multisig_account
from raytensor.commands.transfer import transfer_main
from raytensor.commands.weights import weights_main
from raytensor.devnet.pallets import multisig

RAO, ALICE = 10**9, DevKey("//Alice")
pytestmark = pytest.mark.usefixtures("no_wallet")


@pytest.fixture
def helper(fresh, fund):
    ref = fresh("helper")
    fund(ref, RAO)
    return ref


def test_a_proxy_pays_from_the_account_that_made_it_one_and_pays_the_fee(node, client, payer, helper, fresh, ask):
    dest, on = fresh("dest"), ("-n", node, "--yes")
    order = (dest.ss58, "5", "-w", helper.uri, "--proxy-for", payer.ss58, *on)
    status, told = ask(transfer_main, *order)
    assert (status, told["error"]["name"]) == (1, "NotProxy") and "raytensor proxy add" in told["error"]["action"]
    add = (helper.ss58, "--type", "Transfer", "-w", payer.uri, *on)
    status, told = ask(proxy_main, "add", *add)
    assert status == 0 and told["plan"]["effect"]["deposit_then_rao"] == 61_000_000
    status, told = ask(proxy_main, "list", payer.ss58, "-n", node)
    assert told["proxies"] == [{"proxy": helper.ss58, "type": "Transfer", "delay_blocks": 0}]
    assert ask(proxy_main, "add", *add)[1]["error"]["name"] == "Duplicate"

    before = client.balance(payer.ss58), client.balance(helper.ss58)
    planned = ask(transfer_main, *order, "--dry-run")[1]["plan"]
    assert (planned["signer"], planned["call"]) == (helper.ss58, "Balances.transfer_keep_alive")
    assert "its proxy (Transfer)" in planned["effect"]["for"]
    for _ in range(2):  # the second time it is the receipt of the first
        status, told = ask(transfer_main, *order, "--id", "once")
        assert status == 0 and told["receipt"]["fee_rao"] == planned["fee_rao"] > 0
    assert client.balance(dest.ss58) == 5 * RAO
    spent = [was - client.balance(ref.ss58) for was, ref in zip(before, (payer, helper))]
    assert spent == [5 * RAO, planned["fee_rao"]]

    beyond = ("Commitments.set_commitment", "netuid=1", 'info={"fields": []}', "-w", helper.uri)
    status, told = ask(call_main, *beyond, "--proxy-for", payer.ss58, *on)
    assert (status, told["receipt"]["error"]) == (1, "CallFiltered") and "proxy's type" in told["receipt"]["action"]
    assert ask(proxy_main, "remove", *add)[0] == 0 and client.query("Proxy", "Proxies", [payer.ss58]) == ([], 0)
    assert ask(proxy_main, "remove", *add)[1]["error"]["name"] == "NotFound"
    assert ask(transfer_main, *order)[1]["error"]["name"] == "NotProxy"


def test_a_policy_limits_what_a_proxy_spends_of_the_account(node, client, payer, helper, fresh, ask, tmp_path):
    (tmp_path / "policy.toml").write_text("transfers = true\nmax_spend_rao = 4000000000\n")
    assert ask(proxy_main, "add", helper.ss58, "--type", "Any", "-w", payer.uri, "-n", node, "--yes")[0] == 0
    order = (fresh("dest").ss58, "5", "-w", helper.uri, "--proxy-for", payer.ss58, "-n", node, "--yes")
    status, told = ask(transfer_main, *order, "--policy", tmp_path / "policy.toml")
    assert (status, told["receipt"]["error"]) == (1, "PolicyDenied")


def test_a_multisig_pays_with_the_last_approval(node, client, payer, helper, fresh, fund, ask):
    third, dest = fresh("third"), fresh("dest")
    everyone = ",".join(ref.ss58 for ref in (payer, helper, third))
    account, _ = multisig_account(everyone.split(","), 2)
    client.send(Call("Balances", "transfer_keep_alive", {"dest": account, "value": 50 * RAO}), ALICE.open())

    def order(by, amount="7", *more):
        return ask(
            transfer_main, dest.ss58, amount, "-w", by.uri, "--multisig", f"2:{everyone}", "-n", node, "--yes", *more
        )

    status, first = order(payer, "7", "--id", "bill")
    assert status == 0 and first["receipt"]["fate"] == "included"
    assert first["plan"]["effect"]["approval"] == "1 of 2" and client.balance(dest.ss58) == 0
    ((approvals),) = (one["approvals"] for one in client.query_map("Multisig", "Multisigs", [account]).values())
    assert list(approvals) == [payer.ss58]
    assert order(payer)[1]["error"]["name"] == "AlreadyApproved"
    assert order(payer, "8", "--id", "bill") == (2, {"error": order(payer, "8", "--id", "bill")[1]["error"]}), "another"
    status, last = order(helper)
    assert status == 0 and last["plan"]["effect"]["approval"] == "2 of 2: the order is carried out"
    assert client.balance(dest.ss58) == 7 * RAO and client.balance(account) == 43 * RAO
    status, again = order(payer, "7", "--id", "bill")
    assert status == 0 and again["receipt"] == first["receipt"] and client.balance(dest.ss58) == 7 * RAO


def test_what_fails_within_the_last_approval_is_told(node, client, payer, helper, ask):
    call = (
        "SubtensorModule.start_call",
        "netuid=9999",
        "--multisig",
        f"2:{payer.ss58},{helper.ss58}",
        "-n",
        node,
        "--yes",
    )
    assert ask(call_main, *call, "-w", payer.uri)[0] == 0
    status, told = ask(call_main, *call, "-w", helper.uri)
    assert (status, told["receipt"]["fate"], told["receipt"]["error"]) == (1, "failed", "SubnetNotExists")


def test_mistakes_in_the_options_are_refused(payer, helper, ask):
    order = (payer.ss58, "1", "-w", helper.uri, "--yes")
    for wrong, words in {
        f"2:{payer.ss58},{payer.ss58}": "each signatory once",
        f"3:{payer.ss58}": "a threshold of at least 1 and at most",
        f"0:{payer.ss58}": "a threshold of at least 1",
        f"1:{helper.ss58}": "there are 1",
        f"two:{payer.ss58}": "give THRESHOLD:ACCOUNT",
        "2:nobody": "neither an ss58 address nor",
        payer.ss58: "give THRESHOLD:ACCOUNT",
    }.items():
        status, told = ask(transfer_main, *order, "--multisig", wrong)
        assert status == 2 and words in told["error"]["message"]
    status, told = ask(transfer_main, *order, "--multisig", f"1:{payer.ss58}", "--proxy-for", payer.ss58)
    assert status == 2 and "one of the two" in told["error"]["message"]
    assert weights_main(["set", "1=1", "--netuid", "1", "--proxy-for", payer.ss58]) == 2


@pytest.mark.parametrize("count", [2, 3, 70])
def test_the_address_of_a_multisig_is_the_chains(fresh, count):
    refs = [fresh(f"s{number}").ss58 for number in range(count)]
    account, signatories = multisig_account(refs, 2)
    assert decode(account) == multisig.multisig_account([decode(one) for one in signatories], 2)


def test_outcomes_of_approvals():
    inner = Call("Utility", "force_batch", {"calls": [Call("System", "remark"), Call("System", "remark")]})
    call, end = Call("Multisig", "as_multi", {"call": inner}), Event("System", "ExtrinsicSuccess")
    batch = [Event("Utility", "ItemCompleted"), Event("Utility", "ItemFailed", {"error": "BadOrigin"})]
    batch += [Event("Utility", "BatchCompletedWithErrors")]
    for shape in (call, skeleton(call)):
        (begun,) = outcomes(shape, [Event("Multisig", "NewMultisig", {}), end])
        (approved,) = outcomes(shape, [Event("Multisig", "MultisigApproval", {}), end])
        (failed,) = outcomes(shape, [Event("Multisig", "MultisigExecuted", {"result": {"Err": "BadOrigin"}}), end])
        (partly,) = outcomes(shape, [*batch, Event("Multisig", "MultisigExecuted", {"result": {"Ok": ()}}), end])
        assert (begun.ok, approved.ok, failed.ok, failed.error, partly.ok, partly.error) == (
            *(True, True),
            *(False, "BadOrigin"),
            *(False, "BadOrigin"),
        )
    alone = Call("Multisig", "as_multi_threshold_1", {"call": inner})
    assert [one.ok for one in outcomes(alone, [*batch, end])] == [True, False]
