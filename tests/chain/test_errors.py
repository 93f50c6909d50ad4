"""Names and actions for what a node or a runtime answers."""

from pathlib import Path

import pytest

from raytensor.chain.error_actions import ACTIONS, Do, action_for
from raytensor.chain.errors import CUSTOM, dispatch_error_name, pool_refusal, proofs, table, with_tables


@pytest.mark.parametrize(
    "data, name, custom",
    [
        ("Custom error: 6", "RateLimitExceeded", 6),
        ("Custom error: 10", "HotKeyNotRegisteredInNetwork", 10),
        ("Custom error: 201", "Custom201", 201),
        ("Transaction is outdated", "Stale", None),
        ("Transaction has a bad signature", "BadProof", None),
        ("Inability to pay some fees (e.g. account balance too low)", "Payment", None),
        ("Transaction would exhaust the block limits", "ExhaustsResources", None),
        ("Transaction has an ancient birth block", "AncientBirthBlock", None),
        ("Transaction will be valid in the future", "Future", None),
    ],
)
def test_invalid_transactions(data, name, custom):
    refusal = pool_refusal({"code": 1010, "message": "Invalid Transaction", "data": data})
    assert (refusal.name, refusal.custom) == (name, custom)
    assert refusal.sure is (name != "Stale")  # the nonce may have been used by this very extrinsic


@pytest.mark.parametrize(
    "code, message, name",
    [
        (1010, '{"invalid":{"custom":1}}', "StakeAmountTooLow"),
        (1010, '{"invalid":{"badProof":null}}', "BadProof"),
        (1010, '{"invalid":{"stale":null}}', "Stale"),
        (1001, "Extrinsic has invalid format: Could not decode", "BadFormat"),
        (1012, "Transaction is temporarily banned", "Banned"),
        (1014, "Priority is too low: (5 vs 5)", "PriorityTooLow"),
        (1016, "Immediately Dropped", "PoolFull"),
    ],
)
def test_other_answers_of_the_pool(code, message, name):
    refusal = pool_refusal({"code": code, "message": message})
    assert refusal.name == name
    # What speaks of something that was there before may speak of this very extrinsic, sent twice on the way.
    assert refusal.sure is (name not in ("Stale", "Banned", "PriorityTooLow"))


def test_an_answer_that_leaves_the_fate_open():
    assert not pool_refusal({"code": 1013, "message": "Transaction Already Imported"}).sure
    assert not pool_refusal({"code": -32603, "message": "Internal error"}).sure


def test_every_custom_code_has_an_action():
    assert [name for name in CUSTOM.values() if name not in ACTIONS] == []


def test_every_error_of_the_chains_metadata_has_an_action(client):
    """The embedded chain has the error lists of Subtensor; those of later runtimes are in the table as well."""
    named = {pallet: client.runtime.error_names(pallet) for pallet in client.runtime.pallets}
    assert len(named["SubtensorModule"]) >= 147
    without = {f"{pallet}.{name}" for pallet, names in named.items() for name in names if name not in ACTIONS}
    assert {one for one in without if not one.startswith("System.")} == set()
    later = (
        "WaitingForDissolvedSubnetCleanup",
        "InsufficientTaoBalance",
        "CommitQueueFull",
        "StartCallNotReady",
        "KeepStakeBlockedByCollateral",
        "BasketMinOutNotMet",
    )
    assert [name for name in later if name not in ACTIONS] == []


def test_actions():
    assert action_for("SubtensorModule.SettingWeightsTooFast").do is Do.WAIT
    assert action_for("CommitRevealEnabled").do is Do.REPLAN
    assert action_for("ExhaustsResources").do is Do.RETRY
    assert action_for("NoSuchErrorName").do is Do.FIX
    assert str(action_for("DuplicateUids")) == "give up: the call is malformed: please report it"


def test_dispatch_errors_get_their_metadata_names():
    names = {(7, 29): "SettingWeightsTooFast"}
    lookup = lambda pallet, error: names[pallet, error]  # noqa: E731
    assert dispatch_error_name({"Module": {"index": 7, "error": "0x1d000000"}}, lookup) == "SettingWeightsTooFast"
    assert dispatch_error_name({"Module": (7, 29)}, lookup) == "SettingWeightsTooFast"
    assert dispatch_error_name("BadOrigin", lookup) == "BadOrigin"
    assert dispatch_error_name({"Arithmetic": "Underflow"}, lookup) == "Underflow"
    assert dispatch_error_name({"Token": "FundsUnavailable"}, lookup) == "FundsUnavailable"


def test_the_table_has_a_row_for_each_error():
    lines = table().splitlines()
    assert len(lines) == 2 + len(ACTIONS)
    assert "| `ExpiredWeightCommit` |  | replan | its reveal epoch has passed: commit again |" in lines
    assert any(line.startswith("| `RevealTooEarly` | 17 | wait |") for line in lines)


def test_the_documentation_has_the_tables_as_they_are():
    page = (Path(__file__).resolve().parents[2] / "docs" / "chain.md").read_text()
    assert with_tables(page) == page, "run python -m raytensor.chain.errors docs/chain.md"
    assert table() in page and proofs() in page


def test_no_answer_of_a_pool_is_said_to_prove_that_nothing_happened():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in proofs().splitlines()[2:]]
    for answer, _, proves, done in rows:
        if "no connection" in answer:
            assert proves.startswith("no byte has left")
        elif "1010" in answer or "101" in answer:
            assert proves.startswith("nothing") and done.startswith("open")
    names = proofs()
    assert all(f"| 1010 Custom {number} | `{name}` |" in names for number, name in CUSTOM.items())


def test_custom_255_6_and_19_say_what_they_mean_today():
    assert action_for("BadRequest").do is Do.REPLAN and "commit-reveal" in action_for("BadRequest").text
    assert action_for(CUSTOM[6]).do is Do.WAIT and "commits as well" in action_for(CUSTOM[6]).text
    assert action_for(CUSTOM[19]).do is Do.FIX and "register" in action_for(CUSTOM[19]).text
