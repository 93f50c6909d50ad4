"""Weight and stake intents through every fault, and through kills of the actor: the benchmark in a small form.

The verdict is the chain's: events of every block, stake and balances to the rao, LastUpdate
(jobs/bench/chain_ledger.py).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES = (
    "lying gateway",
    "locked journal",
    "full disk",
    "malformed answer",
    "runtime upgrade",
    "finality lag",
    "dripping endpoint",
    "clock jumps",
    "second program",
)


def run(environment, *arguments, timeout_s):
    command = [sys.executable, str(ROOT / "jobs" / "bench" / "chain_faults.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return {goal["name"]: goal["value"] for goal in json.loads(done.stdout.strip().splitlines()[-1])["goals"]}


@pytest.fixture(scope="module")
def found(joining):
    """One run of both parts: three passes of several classes of faults, then kills, on one node and one network."""
    return run(joining(), "--quick", "--intents", "42", "--kills", "2", timeout_s=800)


def test_each_intent_is_applied_once_or_reported_whatever_happens(found):
    assert found["intents"] == 42 == found["applied exactly once"] + found["reported as not applied"]
    assert found["wrong by the chain's word"] == 0 and found["applied exactly once"] >= 28


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_of_faults_befalls(found, name):
    assert found[f"{name}: times met"] >= 1


def test_a_chain_actor_that_is_killed_applies_nothing_twice_and_loses_nothing(found):
    assert found["kills between plan and receipt"] >= 2 and found["applied twice or lost through kills"] == 0


@pytest.mark.slow
def test_a_hundred_kills(joining):
    found = run(joining(), "--intents", "0", "--kills", "100", "--hotkeys", "8", "--subnets", "8", timeout_s=3600)
    assert found["kills between plan and receipt"] >= 100 and found["applied twice or lost through kills"] == 0
