"""Hosts whose miners train one shared model: tasks in, updates out, checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raytensor import config
from raytensor.data.text import prepare
from raytensor.errors import ConfigError
from raytensor.jobs.run.plan import refuse_unusable
from raytensor.mechanisms.base import Ask
from raytensor.mechanisms.collab import CollabMechanism
from raytensor.mechanisms.collab.judge import first_model
from raytensor.mechanisms.collab.store import Store
from raytensor.mechanisms.evidence import State
from raytensor.miners.host import MinerHost
from raytensor.types import Failure, Submission

SMALL = [
    "mechanism=collab",
    "data=bytes",
    "mechanism.collab.hidden=32",
    "mechanism.collab.layers=1",
    "mechanism.collab.inner_steps=2",
    "mechanism.collab.batch_size=4",
    "mechanism.collab.judge_rows=4",
    "miners.heldout_rows=16",
]


def test_a_host_works_on_the_shared_model_and_goes_on_bit_for_bit(tmp_path, cache_dir):
    cfg = config.compose("run", SMALL)
    rule = replace(cfg.mechanism.collab, folder=str(tmp_path / "shared"))
    cfg = replace(cfg, mechanism=replace(cfg.mechanism, collab=rule))
    text = prepare(cfg.data, cache_dir)
    store = Store.create(tmp_path / "shared", *first_model(rule, text.vocab_size, cfg.seed), first=1)
    members = [
        ("m0", config.MinerProfile()),
        ("m1", config.MinerProfile(behaviour="copy")),
        ("m2", config.MinerProfile(behaviour="silent")),
    ]
    host = MinerHost(cfg, members, text, tmp_path / "checkpoints")
    rules = CollabMechanism(cfg.mechanism, text.log_unigram, text.vocab_size)
    tasks = {task.hotkey: task for task, _ in rules.tasks(Ask(0, 1, "v", 1, ("m0", "m1", "m2")), State(), text)}

    untrained = host.heldout_losses()["m0"]
    assert host.train(1).losses == {}
    first = host.answer(tasks["m0"])
    assert (
        isinstance(first, Submission) and host.answer(tasks["m0"]).payload == first.payload
    )  # the same for every validator
    assert host.answer(tasks["m1"], first).payload == first.payload
    assert isinstance(host.answer(tasks["m2"]), Failure)

    host.checkpoint(1)
    store.append(
        1, rules.codec.decode(first.payload, store.layout.size).dense(), 0 * store.before(1)[1], checkpoint=False
    )
    losses = host.heldout_losses()
    assert losses["m0"] == losses["m1"] < untrained and losses["m2"] is None
    after = {task.hotkey: task for task, _ in rules.tasks(Ask(0, 1, "v", 2, ("m0",)), State(), text)}["m0"]
    again = MinerHost(cfg, members, text, tmp_path / "checkpoints", resume_round=1)
    assert again.answer(after).payload == host.answer(after).payload != first.payload


@pytest.mark.parametrize(
    "profile, words",
    [("{behaviour: huge}", "must be one of honest"), ("{engine: ddp, ranks: 2}", "one process per miner")],
)
def test_what_does_not_fit_the_mechanism_is_refused(profile, words):
    mechanism = [] if "huge" in profile else ["mechanism=collab"]
    with pytest.raises(ConfigError, match=words):
        refuse_unusable(config.compose("run", [*mechanism, f"miners.profiles=[{profile}]"]))
