"""Collaborative training between operators that share no disk: the shared model lies behind a real S3 server, questions
and updates travel over the wire."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from wirekit import client_settings

from raytensor import config
from raytensor.data.text import prepare
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.collab import CollabMechanism
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.evidence import Evidence, State, advance
from raytensor.miners.collaborator import Collaborator
from raytensor.training.recipe import Recipe
from raytensor.types import Submission
from raytensor.wire.client import WireClient

RULE = {"hidden": 32, "layers": 1, "inner_steps": 2, "batch_size": 4, "judge_rows": 4, "checkpoint_every": 2}
MINER = """
import asyncio, json, sys
import torch
from raytensor import config
from raytensor.miners.collaborator import Collaborator
from raytensor.training.recipe import Recipe
from wirekit import Live, key, server_settings

async def main():
    torch.set_num_threads(1)
    me = Collaborator(key("miner").ss58, "honest", config.Collab(**json.loads(sys.argv[1])), Recipe(lr=3e-3))
    async def answer(task):
        return await asyncio.to_thread(me.work, task)
    async with Live(key("validator"), key("miner"), answer, server_settings()) as live:
        print(live.axon, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_miner_of_another_operator_trains_the_model_of_a_store(
    s3, tmp_path, cache_dir, validator, miner, monkeypatch
):
    """Three windows. Each update of the miner's process is, to the bit, that of a miner beside the validator's own copy
    of the model: so it had read each window's model from the store."""
    torch.set_num_threads(1)
    cfg = config.compose("run", ["mechanism=collab", "data=bytes"])
    rule = replace(cfg.mechanism.collab, **RULE, folder=s3("shared"))
    text = prepare(cfg.data, cache_dir)
    mechanism, local = (
        CollabMechanism(replace(cfg.mechanism, collab=one), text.log_unigram, text.vocab_size)
        for one in (rule, replace(rule, folder=str(tmp_path / "copy")))
    )
    for one in (mechanism, local):
        one.start(cfg.seed, 1)
    beside = Collaborator(miner.ss58, "honest", local.rule, Recipe(lr=3e-3))
    theirs = tmp_path / "miner"
    theirs.mkdir()
    here = Path(__file__).resolve().parent
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment |= {"HOME": str(theirs), "TMPDIR": str(theirs), "PATH": os.environ["PATH"]}
    environment |= {"PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)])}
    arguments = [sys.executable, "-c", MINER, json.dumps(RULE | {"folder": rule.folder})]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen(arguments, cwd=theirs, env=environment, **pipes)
    try:
        axon = child.stdout.readline().strip()
        assert axon
        asyncio.run(asyncio.wait_for(windows(mechanism, local, beside, text, axon, validator, miner), 240))
    finally:
        child.stdin.close()
        assert child.wait(60) == 0
    assert Store(rule.folder).newest() == 4
    assert not list(theirs.rglob("*.safetensors"))


async def windows(mechanism, local, beside, text, axon, validator, miner) -> None:
    state = State()
    async with WireClient(validator, client_settings()) as client:
        for window in (1, 2, 3):
            ((task, sealed),) = mechanism.tasks(Ask(0, 1, validator.ss58, window, (miner.ss58,)), state, text)
            answer = await client.ask(task, axon)
            assert isinstance(answer, Submission), answer
            assert answer.payload == beside.work(task).payload
            (score,) = mechanism.score([Item(task, sealed, answer)])
            assert score.values["own_after"] < score.values["own_before"]
            evidence = Evidence(1, validator.ss58, window, (score,))
            for one in (mechanism, local):
                one.after_round(state, evidence, {miner.ss58: answer})
            state = advance(mechanism, state, evidence)
    stored, copy = (Store(one.rule.folder).before(4)[0] for one in (mechanism, local))
    assert (stored == copy).all() and (stored != Store(local.rule.folder).before(3)[0]).any()
