"""A miner whose newest checkpoint is damaged: it says so, goes on from an older one, and ends up where it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fleet import collect, configuration, questions, same, text  # noqa: F401 (a fixture)
from test_group import CLOSE, SHARDED

from raytensor.cluster import wait_ready
from raytensor.errors import ClusterError, DamagedCheckpoint
from raytensor.miners import checkpoints
from raytensor.miners.fleet import Fleet
from raytensor.miners.host import MinerHost

MEMBERS = ["m0", "m1", "m2", "m3"]


@pytest.fixture
def played(text, tmp_path):  # noqa: F811
    """(configuration, members, folder with checkpoints of the rounds 1 and 2, answers of the host that wrote them)."""
    torch.set_num_threads(1)
    cfg = configuration("honest", "lazy", "silent", "honest")
    members = list(zip(MEMBERS, cfg.miners.profiles, strict=True))
    members[3] = ("m3", replace(members[3][1], accumulate=2))  # with an engine of its own, in no stack
    host = MinerHost(cfg, members, text, tmp_path)
    for round in (1, 2):
        host.train(round)
        host.checkpoint(round)
    return cfg, members, tmp_path, [host.answer(task) for task in questions(cfg, text, 2)]


def flip(folder, round: int, hotkey: str) -> str:
    place = checkpoints.path_of(folder, round, hotkey)
    data = bytearray((place / "model.safetensors").read_bytes())
    data[-9] ^= 1
    (place / "model.safetensors").write_bytes(data)
    why = "model.safetensors is damaged: its hash is not the one that was written"
    return f"the checkpoint {place} can't be loaded: {why}"


def test_the_rounds_since_an_older_one_are_trained_again(text, played):  # noqa: F811
    cfg, members, folder, answers = played
    reasons = [flip(folder, 2, hotkey) for hotkey in ("m0", "m3")]
    again = MinerHost(cfg, members, text, folder, resume_round=2)
    assert again.restore_warnings() == [f"{why}; the miner continues from round 1" for why in reasons]
    for task, answer in zip(questions(cfg, text, 2), answers, strict=True):
        found = again.answer(task)
        assert same(found, answer) if hasattr(answer, "ids") else found == answer


def test_when_none_is_whole_it_is_refused(text, played):  # noqa: F811
    cfg, members, folder, _ = played
    reasons = [flip(folder, round, "m0") for round in (2, 1)]
    with pytest.raises(DamagedCheckpoint) as caught:
        MinerHost(cfg, members, text, folder, resume_round=2)
    assert str(caught.value).startswith(f"no checkpoint is whole: {reasons[0]}; {reasons[1]}. Fix: ")


def test_a_fleet_of_hosts_and_ranks_says_so(ray_session, text, played):  # noqa: F811
    """Both ranks of a sharded miner pass the damaged one over together."""
    cfg, _, folder, answers = played
    cfg.miners.profiles[3] = replace(SHARDED, steps=cfg.miners.profiles[3].steps)
    reasons = [flip(folder, 2, hotkey) for hotkey in ("m0", "m3")]
    fleet = Fleet(cfg, MEMBERS, text, num_hosts=1, folder=folder, resume_round=2)
    try:
        fleet.wait_ready(240.0)
        assert fleet.incidents() == [
            f"miner host 0: {reasons[0]}; the miner continues from round 1",
            f"sharded miner 1: {reasons[1]}; the miner continues from round 1",
        ]
        found = collect(fleet, questions(cfg, text, 2))
        for task, answer in zip(questions(cfg, text, 2), answers, strict=True):
            if task.hotkey == "m3":  # two ranks add in another order
                np.testing.assert_allclose(found[task.task_id].probs, answer.probs, atol=CLOSE)
            else:
                assert same(found[task.task_id], answer) if hasattr(answer, "ids") else found[task.task_id] == answer
    finally:
        fleet.close()


class Broken:
    def __init__(self) -> None:
        raise DamagedCheckpoint("no checkpoint is whole: a; b. Fix: c")

    def ready(self) -> None: ...


def test_the_refusal_is_what_the_terminal_shows(ray_session):
    actor = ray_session.remote(Broken).options(num_cpus=0).remote()
    with pytest.raises(ClusterError) as caught:
        wait_ready({"miner host 0": actor.ready.remote()}, timeout_s=240.0)
    assert str(caught.value) == "miner host 0 failed to start: no checkpoint is whole: a; b. Fix: c"
