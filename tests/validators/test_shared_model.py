"""A validator of a subnet whose miners train one shared model: rounds move the model, a restart continues it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytensor import config
from raytensor.data.text import prepare
from raytensor.errors import DataError
from raytensor.mechanisms import base
from raytensor.mechanisms.collab.store import Store
from raytensor.miners.collaborator import CollaboratingMiner
from raytensor.types import Failure, Metagraph, Reason
from raytensor.validators.evidence_log import replay
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.scorer_service import InProcessScorers
from raytensor.validators.subnet import SubnetValidator

SMALL = [
    "mechanism=collab",
    "data=bytes",
    "mechanism.collab.hidden=32",
    "mechanism.collab.layers=1",
    "mechanism.collab.inner_steps=2",
    "mechanism.collab.batch_size=4",
    "mechanism.collab.judge_rows=4",
]


class Miners:
    """Miners that see the folder of the shared model."""

    def __init__(self, cfg, text):
        profiles = {"m0": config.MinerProfile(), "m1": config.MinerProfile(behaviour="silent")}
        self._miners = {h: CollaboratingMiner(h, profile, cfg, text) for h, profile in profiles.items()}

    def ask(self, tasks, metagraph):
        for task in tasks:
            answer = self._miners[task.hotkey].answer(task)
            yield answer or Failure(task.task_id, task.hotkey, Reason.SILENT)


def metagraph(block: int) -> Metagraph:
    hotkeys, none = ("m0", "m1", "v0", "v1"), np.zeros(4, np.uint64)
    axons = ("10.0.0.1:1", "10.0.0.2:1", "", "")
    return Metagraph(7, block, f"0x{block}", 10, 0, 10, hotkeys, hotkeys, axons, *[none] * 10)


def test_rounds_move_the_shared_model_and_a_restart_continues_it(tmp_path, cache_dir):
    cfg = config.compose("run", SMALL)
    cfg = replace(cfg, mechanism=base.with_shared_state(cfg.mechanism, str(tmp_path / "shared")))
    text = prepare(cfg.data, cache_dir)
    spec = MechanismSpec(cfg.mechanism, text.log_unigram, text.vocab_size)

    def validator() -> SubnetValidator:
        scorers = InProcessScorers(Scorer({"7": spec}))
        folder = tmp_path / "netuid7"
        return SubnetValidator(7, ("v0", "v1"), spec, text, folder, transport=miners, scorers=scorers)

    miners = None
    first = validator()  # creates the model that miners need
    first.close()
    miners = Miners(cfg, text)
    first = validator()
    results = [first.play(metagraph(block)) for block in (5, 6)]
    first.close()
    assert [(r.round, r.asked, r.scored, r.failures) for r in results] == [(n, 4, 2, {"silent": 2}) for n in (0, 1)]
    store = Store(tmp_path / "shared")
    models = [store.before(window)[0] for window in (0, 1, 2)]
    assert store.newest() == 2 and not np.array_equal(models[0], models[1]) and not np.array_equal(models[1], models[2])
    assert list(results[1].weights["v0"]) == ["m0"]

    again = validator()
    assert again.play(metagraph(7)).round == 2 and Store(tmp_path / "shared").newest() == 3
    again.close()
    for validator_hotkey in ("v0", "v1"):
        found = replay(tmp_path / "netuid7" / validator_hotkey / "evidence.jsonl")
        assert (found.rounds, found.difference) == (3, "")

    for file in (tmp_path / "shared").glob("*-*.safetensors"):
        file.unlink()
    with pytest.raises(DataError, match="is as of round 0, and round 3 comes next"):
        validator()
