"""The watchdog: when weights are overdue, by how much, and because of what."""

import dataclasses

import numpy as np
import pytest

from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.reads.watchdog import LastTry, judge
from raytensor.chain.writer.journal import Journal
from raytensor.types import Fate, Receipt

ME, OTHER = "me", "other"


def view(**changes):
    """Block 1000 of a subnet with tempo 100: my last weights were set 50 blocks ago."""
    facts = {
        "netuid": 7,
        "mecid": 0,
        "block": 1000,
        "uid_of": {OTHER: 0, ME: 1},
        "permit": np.array([False, True]),
        "last_update": np.array([10, 950], np.uint64),
        "tempo": 100,
        "rate_limit": 100,
        "next_epoch": 1020,
        "owner_hotkey": "",
    }
    return SubnetView(**{**facts, **changes})


def updated(block):
    return np.array([10, block], np.uint64)


def test_weights_in_time():
    health = judge(view(), ME)
    assert (health.uid, health.permit, health.overdue, health.cause) == (1, True, False, "")
    assert (health.last_update, health.age_blocks, health.age_tempos) == (950, 50, 0.5)
    assert health.next_block == 1050  # LastUpdate + WeightsSetRateLimit
    assert health.sentence == "subnet 7, hotkey me: weights in time"
    assert judge(view(last_update=updated(800)), ME).next_block == 1001
    assert judge(view(last_update=updated(0)), ME).next_block == 1001


@pytest.mark.parametrize("age, overdue", [(300, False), (301, True)])
def test_overdue_begins_after_the_third_tempo(age, overdue):
    assert judge(view(last_update=updated(1000 - age)), ME).overdue is overdue
    assert judge(view(last_update=updated(1000 - age)), ME, overdue_tempos=5).overdue is False


@pytest.mark.parametrize("since, overdue", [(1000, False), (800, False), (799, True), (None, True)])
def test_a_validator_has_two_tempos_from_its_start(since, overdue):
    """Whatever the age of the weights before: none, or those of a process that is gone."""
    failed = LastTry(9000.0, Fate.INCLUDED, 500)
    for last, block in ((None, 0), (None, 500), (failed, 500)):
        health = judge(view(last_update=updated(block)), ME, last, since=since)
        due = since + 200 if since and not overdue else None
        assert (health.overdue, health.due_block) == (overdue, due)
        if due is not None:
            assert health.state == f"starting, first weights due by block {due}" and health.state in health.sentence
    newer = judge(view(last_update=updated(950)), ME, since=since)
    assert (newer.due_block, newer.state) == (None, "in time"), "weights that are young are in time"
    young = view(commit_reveal=True, epoch_index=9)
    assert judge(young, ME, commits=[(6, 700)], since=1000).overdue  # seen on the chain, whoever committed it


@pytest.mark.parametrize(
    "last, cause, action",
    [
        (None, "no weights were handed to the writer", "fix: start the validator"),
        (LastTry(30.0), "the weights of 30 s ago are in no block", "fix: check the writer"),
        (LastTry(600.0, Fate.UNKNOWN), "the weights of 10 min ago are in no block", "fix: check the writer"),
        (
            LastTry(600.0, Fate.INCLUDED, 600),
            "none were submitted since those of 10 min ago",
            "fix: check the validator",
        ),
        (LastTry(600.0, Fate.INCLUDED, 900), "block 900 that had them left the chain", "retry: submit"),
        (
            LastTry(60.0, Fate.NOT_SENT, None, "WeightVecLengthIsLow"),
            "WeightVecLengthIsLow (1 min ago)",
            "fix: give weights",
        ),
        (LastTry(60.0, Fate.FAILED, None, "Banned", "wait: x"), "Banned (1 min ago)", "wait: x"),
    ],
)
def test_the_cause_and_what_to_do(last, cause, action):
    health = judge(view(last_update=updated(600)), ME, last)
    assert health.overdue and health.cause == cause and health.action.startswith(action)
    assert health.sentence.startswith(
        f"subnet 7, hotkey me: weights overdue, none for 4.0 tempos (400 blocks), because {cause}; "
    )


def test_without_a_permit_only_a_validator_is_overdue():
    none = np.array([False, False])
    miner = judge(view(permit=none, last_update=updated(1)), ME)
    assert not miner.overdue and miner.cause == "it has no validator permit" and miner.next_block == 1021
    validator = judge(view(permit=none, last_update=updated(1)), ME, LastTry(60.0, Fate.FAILED, None, "X"))
    assert validator.overdue and validator.cause == "it has no validator permit"
    owner = judge(view(permit=none, owner_hotkey=ME), ME)
    assert owner.permit and owner.next_block == 1050  # an owner needs none
    assert judge(view(permit=np.zeros(0, bool)), ME).permit is False  # the column grows at the next epoch


def test_a_hotkey_that_was_pruned():
    health = judge(view(), "gone", LastTry(60.0, Fate.INCLUDED, 600))
    assert health.overdue and health.uid is None and health.next_block is None
    assert health.cause == "the hotkey is not registered" and "register the hotkey" in health.sentence
    assert not judge(view(), "never").overdue


def test_a_subnet_without_epochs_is_never_overdue():
    assert not judge(view(tempo=0, last_update=updated(1)), ME).overdue


def test_a_commit_that_was_never_revealed_is_overdue_however_young():
    young = view(commit_reveal=True, epoch_index=9, reveal_period=1)
    assert not judge(young, ME, commits=[(8, 940), (9, 950)]).overdue  # 8 can be revealed now, 9 later
    health = judge(young, ME, commits=[(6, 700), (7, 850), (9, 950)])
    assert health.overdue and health.age_tempos == 0.5 and health.cause == "the commit of block 850 expired unrevealed"
    assert "salts" in health.action and health.sentence.startswith("subnet 7, hotkey me: weights overdue")
    last = LastTry(60.0, Fate.FAILED, 950, "TimelockedCommitDropped", "replan: x", unrevealed=3, unrevealed_s=600.0)
    health = judge(young, ME, last)
    assert health.cause == "3 commits of the last 10 min expired unrevealed (TimelockedCommitDropped)"
    assert health.action == "replan: x"
    assert not judge(view(), ME, last).overdue  # the subnet has left commit-reveal


def test_the_journal_tells_the_newest_weights_of_each_place(tmp_path):
    journal = Journal(tmp_path / "j.db")
    first, second, other = (
        SetWeights(signer=ME, netuid=netuid, mecid=mecid, values=(("x", 1.0),))
        for netuid, mecid in ((1, 0), (1, 0), (1, 1))
    )
    journal.add_intents([first])
    journal.add_intents([second, other, SetWeights(signer=OTHER, netuid=1, values=())])
    done = Receipt(second.intent_id, second.name, ME, Fate.INCLUDED, netuid=1, block=5)
    journal.settle([done])
    found = {(i.netuid, i.mecid): (i, receipt) for i, _, receipt in journal.latest(ME, SetWeights.name)}
    assert found == {(1, 0): (second, done), (1, 1): (other, None)}
    journal.settle([dataclasses.replace(done, intent_id=first.intent_id, fate=Fate.FAILED)])
    assert {i.intent_id for i in journal.effective_since(0)} >= {second.intent_id, other.intent_id}
    assert first.intent_id not in {i.intent_id for i in journal.effective_since(0)}
    journal.close()
