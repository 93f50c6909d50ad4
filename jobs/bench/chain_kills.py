"""The chain actor killed at random moments between plan and receipt: nothing applied twice, nothing lost.

A Ray actor is given weight and stake intents and gets SIGKILL at a moment drawn from the time that such a portion
takes; Ray starts it again, the same intents are handed in again (at times it is killed once more meanwhile). A kill
counts if the call that it hit never returned. The chain says what came of it (chain_ledger.py). Used by chain_faults.py
--kills.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import ray
from chain_intents import Intents
from chain_ledger import Ledger
from chain_network import hotkey
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError

from raytensor.chain.calls import Intent
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.actor import writer_actor
from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.policy import Policy
from raytensor.chain.writer.settings import WriterSettings
from raytensor.types import Fate, Receipt

PORTION = 16
JUDGED_EVERY = 10  # kills
RESTART_S = 600.0  # on a machine that other work keeps busy
_GONE = (ActorDiedError, ActorUnavailableError, RayActorError)


class Actor:
    """The writer as a Ray actor that somebody kills."""

    def __init__(self, endpoint: str, num_hotkeys: int, folder: Path) -> None:
        signers = {key.ss58: key for n in range(num_hotkeys) for key in (hotkey(n), Intents.coldkey(n))}
        self._actor = writer_actor(
            endpoint,
            signers,
            folder / "actor.db",
            WriterSettings(
                timeout_s=10.0,
                inclusion_timeout_s=60.0,
                limits=Limits(max_items=4),
                policy=Policy(unstaking=True, transfers=True),
            ),
        )
        self.pid = self._ask(lambda: self._actor.__ray_call__.remote(_pid))

    def submit(self, intents: list[Intent]) -> Any:
        return self._actor.submit.remote(intents)

    def again(self, intents: list[Intent]) -> list[Receipt]:
        """Hands in to whatever process is there now, and waits for the receipts."""
        found = self._ask(lambda: self._actor.submit.remote(intents))
        self.pid = self._ask(lambda: self._actor.__ray_call__.remote(_pid))
        return found

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)

    def wait_until_back(self) -> None:
        dead = self.pid
        deadline = time.monotonic() + RESTART_S
        while self.pid == dead and time.monotonic() < deadline:
            self.pid = self._ask(lambda: self._actor.__ray_call__.remote(_pid))

    @staticmethod
    def _ask(call) -> Any:
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                return ray.get(call(), timeout=RESTART_S)
            except _GONE:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        ray.kill(self._actor)


def _pid(actor: Any) -> int:
    return os.getpid()


def run_kills(args: argparse.Namespace, node: Any, folder: Path, netuids: list[int]) -> tuple[int, int, list[str]]:
    """(kills that hit a call, intents, what is wrong by the chain's word)."""
    with contextlib.redirect_stdout(io.StringIO()):  # Ray prints five lines for each process that dies
        return _run(args, node, folder, netuids)


def _say(text: str) -> None:
    print(text, file=sys.__stdout__, flush=True)


def _start_ray() -> None:
    """Join the cluster of RAY_ADDRESS, or start one. Every kill is meant: the raylet need not tell of it."""
    quiet = {"namespace": "raytensor", "log_to_driver": False, "logging_level": "CRITICAL"}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    for left in (2, 1, 0):
        try:
            ray.init(address="local", num_cpus=2, include_dashboard=False, **quiet)
            return
        except (
            Exception
        ):  # Ray gives itself 30 s, too few on a machine that other work keeps busy; it has no class for it
            if not left:
                raise


def _run(args: argparse.Namespace, node: Any, folder: Path, netuids: list[int]) -> tuple[int, int, list[str]]:
    _start_ray()
    client = ChainClient(node.quiet, 60.0)
    dice, made = random.Random(f"{args.seed} kills"), Intents(netuids, args.hotkeys, args.seed + 1)
    made.prefix = "kill-"
    actor = Actor(node.quiet, args.hotkeys, folder)
    kills = missed = total = 0
    wrong: list[str] = []
    try:
        began = time.monotonic()
        portion = made.take(PORTION)
        pairs = []
        ledger = Ledger(client, node.recorder, netuids, [hotkey(n).ss58 for n in range(args.hotkeys)], made.coldkeys)
        pairs += zip(portion, actor.again(portion))
        usual = time.monotonic() - began
        _say(f"\na portion of {PORTION} intents takes {usual:.1f} s; killed at random moments of that")
        _say(f"{'kills':>6}{'too late':>10}{'intents':>9}{'applied':>9}{'reported':>10}{'wrong':>7}{'seconds':>9}")
        while kills < args.kills:
            portion = made.take(PORTION)
            for _ in range(1 if dice.random() < 0.7 else 2):  # at times killed again in the second try
                pending = actor.submit(portion)
                time.sleep(dice.uniform(0.0, usual))
                actor.kill()
                try:
                    ray.get(pending, timeout=RESTART_S)
                    missed += 1  # its receipts came before the kill
                except _GONE:
                    kills += 1
                actor.wait_until_back()
            pairs += zip(portion, actor.again(portion))
            if len(pairs) >= JUDGED_EVERY * PORTION or kills >= args.kills:
                receipts = _settled(actor, node, pairs)
                verdict = ledger.judge(receipts)
                total += len(receipts)
                wrong += verdict.wrong
                took = time.monotonic() - began
                _say(
                    f"{kills:>6}{missed:>10}{total:>9}{verdict.included:>9}{verdict.reported:>10}"
                    f"{len(verdict.wrong):>7}{took:>9.1f}"
                )
                for line in verdict.wrong[:5]:
                    _say(f"    {line}")
                pairs = []
                ledger = Ledger(
                    client, node.recorder, netuids, [hotkey(n).ss58 for n in range(args.hotkeys)], made.coldkeys
                )
    except GetTimeoutError as error:
        wrong.append(f"the actor did not answer within {RESTART_S:g} s: {error}")
    finally:
        actor.close()
        client.close()
        ray.shutdown()
    return kills, total, wrong


def _settled(actor: Actor, node: Any, pairs: list[tuple[Intent, Receipt]]) -> list[tuple[Intent, Receipt]]:
    """What is still unknown is handed in again, until the chain is final."""
    for _ in range(5):
        node.finalize()
        unknown = [intent for intent, receipt in pairs if receipt.fate is Fate.UNKNOWN]
        if not unknown:
            return pairs
        now = {receipt.intent_id: receipt for receipt in actor.again(unknown)}
        pairs = [(intent, now.get(intent.intent_id, receipt)) for intent, receipt in pairs]
    return pairs
