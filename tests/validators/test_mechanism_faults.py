"""Mistakes in a mechanism's own code: named with file and line, never an answer that a miner did not give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import faulty
import numpy as np
import pytest

from raytensor import cli, config
from raytensor.config.validate import SubnetConfig, ValidateConfig
from raytensor.errors import ConfigError, MechanismError
from raytensor.jobs.validate.stack import with_shared_state
from raytensor.mechanisms import base
from raytensor.mechanisms.base import Ask
from raytensor.types import Failure, Reason, Response
from raytensor.validators.evidence_log import Keep, read_log
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.scorer_service import InProcessScorers, ScorerService, make_pool

V = 4
HERE = Path(faulty.__file__)
PROBS = {"m0": 0.25, "m1": 0.75, "m2": 0.5}
ASK = Ask(0, 1, "v", 1, (*PROBS, "silent"))


class Answers:
    """Miners that answer at once with their probability; one is silent."""

    def ask(self, tasks, metagraph):
        for task in tasks:
            if task.hotkey in PROBS:
                probs = np.full((1, 1), PROBS[task.hotkey], np.float32)
                yield Response(task.task_id, task.hotkey, np.zeros((1, 1), np.int32), probs)
            else:
                yield Failure(task.task_id, task.hotkey, Reason.SILENT)


def spec_of(name: str) -> MechanismSpec:
    return MechanismSpec(config.Mechanism(path=f"faulty.{name}"), np.zeros(V, np.float32), V)


@pytest.fixture
def game(tmp_path):
    """Plays rounds of a faulty mechanism with evidence on disk."""
    opened = []

    def make(name: str, scorers=None) -> Round:
        spec = spec_of(name)
        mechanism = spec.load()
        records = Records.newest(tmp_path, 1, ("v",), spec, mechanism, Keep())
        opened.append(records)
        scorers = scorers or InProcessScorers(Scorer({"s": spec}))
        return Round(RoundParts("s", mechanism, None, records, Answers(), scorers))

    yield make
    for records in opened:
        records.close()


def line_of(text: str) -> int:
    """The number of the only line of faulty.py that has this text."""
    (number,) = [n for n, line in enumerate(HERE.read_text().splitlines(), 1) if text in line]
    return number


def test_a_score_that_is_not_finite_fails_alone(game, tmp_path):
    result = game("NanScore").play([ASK])
    assert (result.asked, result.answered, result.scored) == (4, 3, 2) and result.failures == {"silent": 1}
    ((cause, number),) = result.unscored.items()
    line = line_of("# line 54") - 1
    assert number == 1
    assert cause == f"faulty.NanScore: score gave value=nan, which is not finite ({HERE}, line {line}, in score)"
    assert result.weights == {"v": {"m0": 1 / 3, "m2": 2 / 3}}
    (evidence,) = [entry.body for entry in read_log(tmp_path / "v" / "evidence.jsonl") if entry.kind == "evidence"]
    assert [one["task_id"] for one in evidence["unjudged"]] == ["1/1/v/m1"], "it is nobody's failure"
    assert [one["hotkey"] for one in evidence["results"]] == ["m0", "m2", "silent"]


def test_an_answer_that_makes_score_raise_fails_alone(game):
    """One miner's odd answer must not stop the others from being scored."""
    result = game("RaisesForOne").play([ASK])
    ((cause, number),) = result.unscored.items()
    line = line_of("1 / (0.75 - super()")
    assert (result.scored, number, result.failures) == (2, 1, {"silent": 1})
    assert cause.startswith("faulty.RaisesForOne raised in score: ZeroDivisionError:")
    assert cause.endswith(f"({HERE}, line {line}, in value)")


@pytest.mark.parametrize(
    "name, says, at",
    [
        ("Misspelt", "raised in score: NameError: name 'scor' is not defined", "[scor(item)"),
        ("ShortScore", "score returned 0 for 1 items: must be a list with a result for each", None),
        ("BadTasks", "raised in tasks: NameError: name 'undefined' is not defined", "[undefined]"),
        ("BadReduce", "reduce returned {'no': 'state'}, not a State", None),
        ("NanState", "reduce gave m0 value=inf, which is not finite", None),
        ("Negative", "weights gave 'm1' the weight -0.25: must be finite and >= 0", None),
        ("Missing", "weights gave 'm0' the weight None: must be finite and >= 0", None),
        ("NoWeights", "weights returned None, not {hotkey: weight}", None),
    ],
)
def test_a_mechanism_that_fails_as_a_whole_is_named(game, name, says, at):
    with pytest.raises(MechanismError) as caught:
        game(name).play([ASK])
    text = str(caught.value)
    assert text.startswith(f"faulty.{name}") and says in text and f"({HERE}, line " in text
    if at is not None:
        assert f"({HERE}, line {line_of(at)}, in " in text


def test_a_constructor_that_raises_is_named():
    with pytest.raises(MechanismError, match="could not be constructed: KeyError: 'missing'") as caught:
        spec_of("BadConstructor").load()
    line = line_of('cfg.options["missing"]')
    assert f"({HERE}, line {line}, in __init__)" in str(caught.value)


def test_an_answer_that_hangs_its_scorer_fails_alone(ray_session, game, monkeypatch):
    """The round waits until the pool has found out which answer it was."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    cfg = config.Validators(num_scorers=1, cpus_per_scorer=0.2, score_limit_s=3.0)
    specs = {"s": spec_of("Hangs")}
    with ScorerService(lambda: make_pool(specs, cfg), cfg, threaded=False) as scorers:
        result = game("Hangs", scorers).play([ASK])
    assert result.scored == 2 and result.failures == {"silent": 1}
    ((cause, number),) = result.unscored.items()
    assert number == 1 and "ran past 3 s" in cause


# ------------------------------------------------------------------------------------------------ before the start


@pytest.mark.parametrize(
    "job", [["run"], ["validate", "netuids=[1]", "hotkeys=[//Alice]", "chain.network=ws://127.0.0.1:9"]]
)
def test_dry_runs_import_the_mechanism(job, capsys):
    assert cli.main([*job, "dry_run=true", "mechanism.path=no.such.Thing"]) == 2
    said = capsys.readouterr().err
    assert "mechanism.path='no.such.Thing': No module named 'no'" in said and "fix: install the package" in said


def test_a_module_in_the_current_folder_is_found(tmp_path):
    """As the installed script starts: without the current folder on Python's path."""
    (tmp_path / "mine.py").write_text("from raytensor.mechanisms.query import QueryMechanism as Rules\n")
    env = os.environ | {"PYTHONPATH": str(HERE.parents[2])}
    command = [
        sys.executable,
        "-P",
        "-c",
        "from raytensor.mechanisms import base; print(base.load_class('mine.Rules'))",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert "QueryMechanism" in done.stdout, done.stderr


def test_a_module_that_raises_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_rules.py").write_text("x = 1\nraise RuntimeError('half done')\n")
    (tmp_path / "half_written.py").write_text("class Rules(\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"could not be imported: RuntimeError: half done \(.*broken_rules.py, line 2"
    ):
        base.load_class("broken_rules.Rules")
    with pytest.raises(ConfigError, match=r"could not be imported: SyntaxError: .*half_written.py, line 1"):
        base.load_class("half_written.Rules")


def test_validate_refuses_a_shared_model_without_its_folder(tmp_path):
    collab = "raytensor.mechanisms.collab.CollabMechanism"
    shared = config.Mechanism(path=collab, collab=config.Collab(folder=str(tmp_path)))
    cfg = ValidateConfig(
        subnets=[SubnetConfig(5, [], config.Mechanism(path=collab)), SubnetConfig(6, [], shared)], hotkeys=["//Alice"]
    )
    with pytest.raises(ConfigError, match="subnet 5: mechanism.collab.folder=null: .*\n  fix: set mechanism.collab.f"):
        with_shared_state(cfg)
    cfg = ValidateConfig(subnets=cfg.subnets[1:], netuids=[7], hotkeys=["//Alice"])
    assert [one.mechanism.collab.folder for one in with_shared_state(cfg)] == [str(tmp_path), None]


@pytest.mark.parametrize(
    "settings, says",
    [
        ("mechanism=collab miners.profiles=[{engine: fsdp2}]", "engine='fsdp2': raytensor.mechanisms.collab."),
        ("miners.profiles=[{behaviour: stale}]", "miners.profiles[0].behaviour='stale': must be one of honest"),
        ("miners.profiles=[{behaviour: copy_noise}]", "miners.profiles[0].behaviour='copy_noise': must be one of"),
        ("mechanism=collab mechanism.files=true", "mechanism.files=True: must be false or null where miners train"),
        ("mechanism=model_eval mechanism.model_eval.seq_len=99", "mechanism.model_eval.seq_len=99: must be at most"),
        (
            "mechanism=model_eval data=bytes miners.profiles=[{lora_rank: 4}]",
            "lora_rank=4: a submitted file holds whole",
        ),
    ],
)
def test_miners_that_do_not_fit_the_mechanism_are_refused(settings, says, capsys):
    parts = settings.replace("}]", "}] ").split("miners.profiles=")
    args = parts[0].split() + [f"miners.profiles={part.strip()}" for part in parts[1:]]
    assert cli.main(["run", "dry_run=true", *args]) == 2
    assert says in capsys.readouterr().err


def test_json_of_a_state_stays_readable():
    """What the guard lets through can be written and read again."""
    mechanism = spec_of("Right").load()
    state = mechanism.reduce(base.State(), base.Evidence(1, "v", 1, ()))
    assert json.dumps(dict(state.miners), allow_nan=False) == "{}"
