"""`raytensor evaluate`: a model's loss on its own held-out text and on named sets of files."""

from __future__ import annotations

import json
import math
import sys

import pytest
from test_train_job import settings

from raytensor import config
from raytensor.cli import main
from raytensor.training import loop
from raytensor.training.ranks import alone


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder as `raytensor train` leaves it, and its last held-out loss."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    cfg, seen = settings(folder.parent, steps=10), []
    loop.run(cfg, alone(), folder, seen.append)
    (folder / "config.yaml").write_text(config.to_yaml(cfg))
    return folder, seen[-1]


def test_a_run_is_measured_as_at_its_end(trained, capsys):
    folder, last = trained
    assert main(["evaluate", str(folder), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["texts"]
    assert found["text"] == "held-out" and found["loss"] == pytest.approx(last.heldout, abs=1e-6)
    assert found["error"] == pytest.approx(last.heldout_error, abs=1e-6)
    assert found["perplexity"] == math.exp(found["loss"])


def test_named_sets_are_measured_as_a_whole(trained, tmp_path, capsys):
    folder, _ = trained
    (tmp_path / "a.txt").write_text("\n".join(f"line {number} of a text" for number in range(200)))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"{number} apples"}) + "\n" for number in range(200)))
    args = ["--set", f"a={tmp_path}/*.txt", "training.heldout_rows=16", "--set", f"apples={tmp_path / 'b.jsonl'}"]
    assert main(["evaluate", str(folder), *args]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["text", "loss,", "nats/token", "standard", "error", "perplexity", "tokens"]
    assert [line.split()[0] for line in lines[1:]] == ["held-out", "a", "apples"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--set", "wiki"], "type NAME=FILES"),
        (["--set", "wiki=/texts/x.csv"], "must end in .txt, .json, .jsonl, .parquet"),
        (["--set", "wiki=/texts/none.txt"], "no file matches"),
        (["--set", "held-out=/texts/none.txt"], "the name 'held-out' is taken"),
        (["--tasks", "hellaswag"], "pip install 'raytensor[eval]'"),
        (["training.seq_len=0"], "training.seq_len=0"),
        (["training.seq_lem=8"], "did you mean training.seq_len"),
    ],
)
def test_mistakes_are_one_line_with_the_fix(trained, capsys, monkeypatch, args, why):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert main(["evaluate", str(trained[0]), *args]) == 2
    assert why in capsys.readouterr().err


def test_folders_without_a_model_are_refused(trained, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("name: x")
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "has no model to evaluate" in capsys.readouterr().err
    (tmp_path / "export").mkdir()
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "is no configuration of `raytensor train`" in capsys.readouterr().err
