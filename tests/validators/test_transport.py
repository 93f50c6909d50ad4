"""Both transports give the same answers and scores to the bit; a broken asker costs no miner anything."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from ray.exceptions import RayActorError

sys.path.insert(0, str(Path(__file__).parent.parent / "wire"))
import wirekit

from raytensor import config
from raytensor.data.text import Text, unigram
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State
from raytensor.miners.fleet import Fleet
from raytensor.types import Failure, Reason
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.transport import InCluster, Wire
from raytensor.wire.asker import Asker
from raytensor.wire.errors import MalformedAuth
from raytensor.wire.notary import Notary
from raytensor.wire.server import WireServer

V = 64
VALIDATOR = wirekit.key("validator")


class SeedRef:
    """A reference of a key of these tests."""

    def __init__(self, name):
        self.name = name

    def open(self):
        return wirekit.key(self.name)


class Served:
    """Miners' servers in a process of their own; they answer by asking the fleet's hosts that answer in-cluster."""

    def __init__(self, hosts: dict):
        self.hosts = hosts
        self.servers = []

    async def serve(self, validator: str) -> dict[str, str]:
        axons = {}
        for hotkey, host in self.hosts.items():

            async def ask(task, host=host):
                return await host.answer.remote(task, None)

            server = WireServer(hotkey, ask, wirekit.server_settings())
            address, port = await server.start()
            server.update(wirekit.metagraph([validator, *self.hosts]))
            self.servers.append(server)
            axons[hotkey] = f"{address}:{port}"
        return axons


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = (draw.zipf(1.5, n).clip(1, V).astype(np.uint16) - 1 for n in (4_000, 1_000))
    return Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)


@pytest.fixture(scope="module")
def asker(ray_session):
    notary = ray_session.remote(num_cpus=0)(Notary).remote({VALIDATOR.ss58: SeedRef("validator")})
    schemes = ray_session.get(notary.schemes.remote(), timeout=240)
    assert schemes == {VALIDATOR.ss58: 1}
    handle = ray_session.remote(num_cpus=0)(Asker).remote(notary, schemes, wirekit.client_settings())
    yield handle
    ray_session.kill(handle)
    ray_session.kill(notary)


def test_transport_does_not_change_results(ray_session, asker, text):
    profiles = [config.MinerProfile(hidden=16, layers=1, heads=2, steps=1), config.MinerProfile(behaviour="silent")]
    cfg = config.RunConfig(
        miners=config.Miners(num_miners=4, num_hosts=2, cpus_per_host=0.1, profiles=profiles, heldout_rows=16),
        mechanism=config.Mechanism(query=config.Query(rows=8, context=12, shortest=4, top_k=16)),
    )
    hotkeys = [wirekit.key(f"miner {n}").ss58 for n in range(4)]
    fleet = Fleet(cfg, hotkeys, text, num_hosts=2, folder=None, resume_round=None)
    try:
        fleet.wait_ready(120)
        rules = MechanismSpec(cfg.mechanism, text.log_unigram, V)
        questions = rules.load().tasks(base.Ask(0, 1, VALIDATOR.ss58, 0, tuple(hotkeys)), State(), text)
        hosts = {hotkey: fleet.host_of[hotkey].actor for hotkey in hotkeys}
        served = ray_session.remote(num_cpus=0)(Served).remote(hosts)
        axons = ray_session.get(served.serve.remote(VALIDATOR.ss58), timeout=240)
        metagraph = wirekit.metagraph(hotkeys, axons=[axons[hotkey] for hotkey in hotkeys])
        scorer, found = Scorer({"s": rules}), {}
        for name, transport in (("in-cluster", InCluster(fleet)), ("wire", Wire(asker))):
            answers = {}
            for answer in transport.ask([task for task, _ in questions], metagraph):
                key = answer.item_id if isinstance(answer, Failure) else answer.task_id
                assert key not in answers
                answers[key] = answer
            assert answers.keys() == {task.task_id for task, _ in questions}
            given = [("s", task, sealed, answers[task.task_id]) for task, sealed in questions]
            found[name] = [
                answer.reason if isinstance(answer, Failure) else scorer.score_all([(name_, task, sealed, answer)])[0]
                for name_, task, sealed, answer in given
            ]
        assert found["in-cluster"] == found["wire"]
        kinds = [one if isinstance(one, Reason) else "score" for one in found["wire"]]
        assert kinds == ["score", Reason.SILENT, "score", Reason.SILENT]
    finally:
        fleet.close()


def test_an_asker_that_dies_costs_no_miner_anything(ray_session, asker):
    lonely = ray_session.remote(num_cpus=0)(Asker).remote(None, {}, wirekit.client_settings())
    task = wirekit.task(VALIDATOR.ss58, wirekit.key("miner 0").ss58)
    metagraph = wirekit.metagraph([task.hotkey], axons=["127.0.0.1:9"])
    (failed,) = Wire(lonely).ask([task], metagraph)  # it knows no key of this validator
    assert failed.reason is Reason.CANCELLED
    ray_session.kill(lonely)
    with pytest.raises(RayActorError):
        while True:  # a call may still reach it
            ray_session.get(lonely.ready.remote(), timeout=240)
    (failed,) = Wire(lonely).ask([task], metagraph)
    assert failed.reason is Reason.CANCELLED and "asking process failed" in failed.detail
    (failed,) = Wire(asker).ask([dataclasses.replace(task, deadline_s=60.0)], metagraph)
    assert failed.reason is Reason.ERROR and "no connection" in failed.detail


def test_the_notary_signs_requests_and_nothing_else():
    notary = Notary({VALIDATOR.ss58: SeedRef("validator")})
    asked = []

    class Spy:
        ss58, crypto_type, blocking = VALIDATOR.ss58, 1, False

        def sign(self, message):
            asked.append(message)
            return notary.sign(VALIDATOR.ss58, message)

    from raytensor.wire.dialects import DIALECTS

    task = wirekit.task(VALIDATOR.ss58, wirekit.key("miner 0").ss58)
    for name in ("btauth", "epistula", "axon_v10"):
        dialect = DIALECTS[name]()
        dialect.sign(Spy(), dialect.draft(task, "json"), task.hotkey, 1_800_000_000_000_000_000)
    assert len(asked) == 3
    for message in (
        b"",
        b"\x07\x00" + asked[0],
        asked[0] + b"\n",
        asked[1][:-1] + b"\xff",
        b"\x05\x04" + bytes(60),
        bytes(32),
    ):
        with pytest.raises(MalformedAuth):
            notary.sign(VALIDATOR.ss58, message)
    with pytest.raises(KeyError):
        notary.sign(task.hotkey, asked[0])
