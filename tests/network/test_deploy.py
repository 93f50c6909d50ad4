"""A served miner: its host dies, its model is replaced, a key answers with another's model; no question fails."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from test_axons import V, task

from raytensor import config
from raytensor.chain.wallet import DevKey
from raytensor.config import MinerProfile
from raytensor.config.wire import AccessPolicy, Client
from raytensor.data.text import Text, unigram
from raytensor.jobs.mine.deploy import Deployer
from raytensor.jobs.mine.front import Front
from raytensor.miners.fleet import Fleet
from raytensor.training import models
from raytensor.training.models import ModelSpec
from raytensor.types import Failure, Response
from raytensor.wire.client import WireClient

LIMIT_S = 150.0  # a host that is started loads torch first, which takes long on a busy machine
CALLER, FIRST, SECOND = (DevKey(f"//deploy//{name}") for name in ("caller", "first", "second"))


def write(folder, seed: int) -> None:
    models.build(ModelSpec(None, 32, 1, 2, V, 16, seed)).save_pretrained(folder)


@pytest.fixture
def served(ray_session, tmp_path):
    """(fleet, front, folder of the model) of one model that answers for two hotkeys on one port."""
    draw = np.random.default_rng(0)
    train, heldout = draw.integers(0, V, 4_000).astype(np.uint16), draw.integers(0, V, 1_000).astype(np.uint16)
    text = Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)
    folder = tmp_path / "model"
    write(folder, seed=1)
    wire = config.MinersWire(enabled=True, one_port=True, host="127.0.0.2", port=0)
    wire.answer_timeout_s = LIMIT_S
    wire.policy = AccessPolicy(allow=[CALLER.ss58])
    profile = MinerProfile(model=str(folder), steps=2, batch_size=4)
    mining = config.Mining(profiles=[profile], seq_len=16, warmup_rounds=0, heldout_rows=16, cpus_per_host=0.2)
    mining.wire = wire
    cfg = config.RunConfig(data=config.Data(tokenizer="bytes"))
    cfg.miners = mining  # pyright: ignore[reportAttributeAccessIssue] (what the miners' code reads of it)
    fleet = Fleet(cfg, [FIRST.ss58], text, num_hosts=1, folder=tmp_path / "checkpoints", max_replacements=10)
    front = None
    try:
        fleet.wait_ready(90.0)
        front = Front(cfg, fleet, [FIRST.ss58, SECOND.ss58], dict.fromkeys([FIRST.ss58, SECOND.ss58], FIRST.ss58))
        yield fleet, front, folder, mining
    finally:
        if front is not None:
            front.close()
        fleet.close()


def ask(front: Front, key: DevKey, number: int) -> Response | Failure:
    async def go():
        async with WireClient(CALLER.open(), Client(allow_local_addresses=True, tries=1)) as client:
            question = replace(task(1, CALLER, key.ss58, number), deadline_s=LIMIT_S)
            return await client.ask(question, front.addresses[key.ss58])

    return asyncio.run(asyncio.wait_for(go(), LIMIT_S + 30))


class Crowd:
    """Asks from a thread until it is stopped, at less than the 50 requests/s that a miner takes of one hotkey."""

    def __init__(self, front: Front) -> None:
        self.outcomes: list[Response | Failure] = []
        self._front, self._stop = front, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 100
        while not self._stop.wait(0.03):
            number += 1
            self.outcomes.append(ask(self._front, FIRST, number))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)


def tend_until(fleet: Fleet, done, limit_s: float = LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "not in time"
        fleet.tend()
        time.sleep(0.05)


def test_no_question_fails_while_models_are_replaced(served):
    fleet, front, folder, mining = served
    assert len(set(front.addresses.values())) == 1 and front.unreachable() == ""
    first, second = ask(front, FIRST, 0), ask(front, SECOND, 0)
    assert isinstance(first, Response) and isinstance(second, Response), (first, second)
    assert (first.hotkey, second.hotkey) == (FIRST.ss58, SECOND.ss58)
    np.testing.assert_array_equal(first.probs, second.probs)

    # Another model in the same folder: deployed once it has settled, while questions come in.
    deployer = Deployer(mining, [FIRST.ss58], fleet, None)
    crowd = Crowd(front)
    write(folder, seed=2)
    said: list[str] = []

    def deployed() -> bool:
        deployer.look(3)
        said.extend(fleet.incidents())
        return any("answers with its new models" in line for line in said)

    tend_until(fleet, deployed)
    crowd.stop()
    assert crowd.outcomes and not [one for one in crowd.outcomes if isinstance(one, Failure)]
    assert deployer.since_round == 3
    newer = ask(front, FIRST, 0)
    assert isinstance(newer, Response) and not np.array_equal(newer.probs, first.probs)

    # Its host is killed: the question waits for the replacement.
    assert fleet.checkpoint(1)
    pids = fleet.wait_ready(30.0)
    crowd = Crowd(front)
    os.kill(pids["miner host 0"], signal.SIGKILL)
    tend_until(fleet, lambda: any("is replaced" in line for line in said) or said.extend(fleet.incidents()))
    tend_until(fleet, lambda: fleet.tend())
    crowd.stop()
    assert crowd.outcomes and not [one for one in crowd.outcomes if isinstance(one, Failure)]
    again = ask(front, FIRST, 0)
    assert isinstance(again, Response)
    traffic = front.traffic()
    assert traffic is not None and traffic.callers[CALLER.ss58] == traffic.outcomes["ok"] > 4
