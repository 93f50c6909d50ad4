"""`subnet=NAME`: a package is found by its entry point or its path, its settings come before the typed ones."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from raytensor import cli, config
from raytensor.config.compose import compose
from raytensor.config.subnets import find
from raytensor.data.text import Text, unigram
from raytensor.errors import ConfigError, MechanismError
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import State
from raytensor.miners.host import MinerHost
from raytensor.types import Failure, Reason, Response
from raytensor.validators.scorer import MechanismSpec
from raytensor.wire.payloads import checked

ROOT = Path(__file__).resolve().parent.parent

MODULE = """
from raytensor.config.subnets import Subnet
from raytensor.mechanisms.base import Mechanism, scored
from raytensor.mechanisms.evidence import State
from raytensor.miners.responder import Responder
from raytensor.payload import Array, Fields, Number, Schema


class Doubling(Mechanism):
    responder = "doubling.Honest"
    schemas = {"double": Schema(Fields(x=Array("int64", (3,))), Fields(x=Array("int64", (3,)), round=Number()))}

    def __init__(self, cfg, log_unigram, vocab_size, *, deadline_s=60.0):
        self.cfg, self.deadline_s = cfg, deadline_s

    def tasks(self, ask, state, text):
        x = ask.draw("double").integers(0, 99, self.cfg.options.get("size", 3))
        return [(ask.question(one, "double", {"x": x}, self.deadline_s), 2 * x) for one in ask.hotkeys]

    def score(self, items):
        return [scored(task, {"right": float((answer.payload["x"] == twice).mean())}) for task, twice, answer in items]

    def reduce(self, state, evidence):
        return State(evidence.round, {one.hotkey: {"right": one.values["right"]} for one in evidence.scores})

    def weights(self, state):
        return state.floats("right")


class Honest(Responder):
    rounds = 0

    def answer(self, task):
        wrong = self.setup.profile.behaviour == "lazy"
        return {"x": task.payload["x"] * 2 + wrong, "round": self.rounds}

    def train(self, round):
        self.rounds = round
        return 1.0 / round

    def save(self, folder):
        (folder / "rounds").write_text(str(self.rounds))

    def load(self, folder):
        self.rounds = int((folder / "rounds").read_text())


class Better(Honest):
    pass


SUBNET = Subnet("doubling.Doubling", defaults=("miners.num_miners=3", "data=bytes", "rounds=2", "pause_s=7"))
OTHER = Subnet("doubling.Doubling", responder="doubling.Better")
WRONG = 1
"""


@pytest.fixture(scope="module", autouse=True)
def doubling(tmp_path_factory):
    """The package as somebody installed it: a module, and the entry points of its distribution."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "doubling.py").write_text(MODULE)
    (folder / "broken_subnet.py").write_text("import no_such_package_at_all\n")
    info = folder / "doubling-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: doubling\nVersion: 1.0\n")
    points = "[raytensor.subnets]\ntwice = doubling:SUBNET\nother = doubling:OTHER\nbroken = broken_subnet:SUBNET\n"
    (info / "entry_points.txt").write_text(points)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("doubling", None)


def test_a_subnet_is_found_by_entry_point_and_by_path():
    assert find("twice") == find("doubling") == find("doubling:SUBNET")
    assert find("doubling:OTHER") == find("other") != find("twice")


@pytest.mark.parametrize(
    "name, words",
    [
        ("twise", r"No module named 'twise'; installed: broken, other, twice.*did you mean"),
        ("doubling:MORE", "doubling has no MORE"),
        ("doubling:WRONG", "doubling:WRONG is a int, not a raytensor Subnet"),
        ("broken", "No module named 'no_such_package_at_all'"),
        ("json", "json has no SUBNET.*\n  fix: install the package, or start from the folder that holds it"),
    ],
)
def test_what_is_no_subnet_is_refused(name, words):
    with pytest.raises(ConfigError, match=textwrap.dedent(words)):
        find(name)


def test_settings_of_the_package_come_first_and_only_where_the_job_has_them():
    run = compose("run", ["subnet=twice"])
    assert (run.mechanism.path, run.miners.num_miners, run.rounds) == ("doubling.Doubling", 3, 2)
    assert run.data.tokenizer == compose("run", ["data=bytes"]).data.tokenizer
    assert compose("run", ["rounds=5", "subnet=twice", "data=stdlib"]).rounds == 5
    mine = compose("mine", ["subnet=twice", "netuids=[1]", "hotkeys=[w/h]", "chain.network=local"])
    assert (mine.mechanism.path, mine.pause_s) == ("doubling.Doubling", 7.0)
    assert compose("run", ["subnet=other"]).mechanism.responder == "doubling.Better"
    with pytest.raises(ConfigError, match="plays no subnet"):
        compose("train", ["subnet=twice"])


def rules(**options):
    return MechanismSpec(config.Mechanism(path="doubling.Doubling", options=options), np.zeros(4, np.float32), 4)


def test_a_question_outside_of_its_own_schema_is_the_mechanisms_fault():
    with pytest.raises(MechanismError, match="made a question of kind 'double' outside of its schema: x: dimension 0"):
        rules(size=4).load().tasks(base.Ask(0, 1, "v", 1, ("m",)), State(), None)


def test_a_host_answers_by_the_responder_trains_it_and_restores_it(tmp_path):
    tokens = np.arange(4000).astype(np.uint16) % 64
    text = Text(tokens, tokens, np.array([0, 4000]), np.array([0, 4000]), unigram(tokens, 64), 64, 1.0)
    names = {"a": "honest", "b": "lazy", "c": "silent", "d": "copy"}
    members = [(hotkey, config.MinerProfile(behaviour=behaviour)) for hotkey, behaviour in names.items()]
    cfg = config.RunConfig(mechanism=config.Mechanism(path="doubling.Doubling"))
    host, mechanism = MinerHost(cfg, members, text, folder=tmp_path), rules().load()
    assert host.train(3).losses == dict.fromkeys(names, 1 / 3)
    asked = mechanism.tasks(base.Ask(0, 1, "v", 3, tuple(names)), State(), text)
    answers = {task.hotkey: checked(task, host.serve(task)) for task, _ in asked}
    copied = host.answer(asked[3][0], answers["a"])
    assert isinstance(copied, Response) and copied.hotkey == "d" and copied.payload == answers["a"].payload
    assert isinstance(answers["c"], Failure) and answers["c"].reason is Reason.SILENT
    items = [base.Item(task, sealed, answers[task.hotkey]) for task, sealed in asked if task.hotkey in "ab"]
    assert [result.values["right"] for result in mechanism.score(items)] == [1.0, 0.0]
    host.checkpoint(3)
    again = MinerHost(cfg, members, text, folder=tmp_path, resume_round=3)
    assert not again.restore_warnings()
    restored = again.serve(asked[0][0])
    assert isinstance(restored, Response) and restored.payload is not None and restored.payload["round"] == 3


# ------------------------------------------------------------------------------------------- packages of the repository


def own_pytest(folder, *args):
    """The tests of a package, run as their author runs them: in a process of its own, with the plugin."""
    plugin = ["-p", "raytensor.subnets.pytest_plugin", "-p", "no:cacheprovider"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *args],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.fixture(scope="module")
def new_subnet(tmp_path_factory):
    """The folder that `raytensor new-subnet sorter` has written."""
    here = tmp_path_factory.mktemp("new")
    with contextlib.chdir(here):
        assert cli.main(["new-subnet", "sorter"]) == 0
    return here / "sorter"


def test_a_new_subnet_passes_its_own_tests(new_subnet):
    done = own_pytest(new_subnet)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


def test_the_examples_pass_their_own_tests():
    done = own_pytest(ROOT / "examples", "forecast", "inpainting")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["forecast", "inpainting", "sorter"])
def test_the_settings_of_a_package_compose_for_every_job(name, new_subnet, monkeypatch):
    monkeypatch.chdir(new_subnet if name == "sorter" else ROOT / "examples")
    for job, more in (("run", []), ("mine", ["chain.network=local"]), ("validate", ["chain.network=local"])):
        asked = [f"subnet={name}", *more, *(["netuids=[1]", "hotkeys=[w/h]"] if more else [])]
        assert base.needs(compose(job, asked).mechanism).responder.startswith(f"{name}.")


@pytest.mark.parametrize(
    "name, words", [("sorter", "exists already"), ("Sorter", "has a-z, 0-9 and _"), ("json", "another Python package")]
)
def test_names_that_a_new_subnet_can_not_have(name, words, new_subnet, monkeypatch, capsys):
    monkeypatch.chdir(new_subnet.parent)
    assert cli.main(["new-subnet", name]) == 2
    assert words in capsys.readouterr().err


def test_a_run_plays_a_new_subnet(new_subnet, joining):
    """`raytensor run subnet=NAME` in the new folder: the honest miners are paid by the embedded chain."""
    profiles = "miners.profiles=[{behaviour: honest}, {behaviour: silent}]"
    settings = ["miners.num_miners=2", "rounds=2", profiles, "miners.heldout_rows=16"]
    settings += [f"paths.cache={os.environ['TEXT_CACHE']}", "chain.block_time_s=0.25"]
    done = subprocess.run(
        [sys.executable, "-m", "raytensor", "run", "subnet=sorter", "name=one", *settings],
        cwd=new_subnet,
        env=joining(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = {line.split()[3]: line.split() for line in done.stdout.splitlines() if " miner " in line}
    assert float(rows["honest"][7]) == 1.0 and rows["silent"][7] == "0.0000", done.stdout
