"""`raytensor train`: the loop by itself, and the whole job on Ray Train with a worker killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from raytensor.config import Data
from raytensor.config.train import TrainConfig, Training
from raytensor.errors import ConfigError, DataError
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.events import TrainStep
from raytensor.training import loop
from raytensor.training.models import ModelSpec, build
from raytensor.training.ranks import alone

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 1e-4  # nats, after 30 steps on two ranks
TRAINING = {
    "steps": 30,
    "seq_len": 16,
    "batch_size": 4,
    "checkpoint_every": 5,
    "log_every": 5,
    "heldout_every": 10,
    "heldout_rows": 16,
}


def settings(tmp_path, **training) -> TrainConfig:
    torch.set_num_threads(1)
    cfg = TrainConfig(data=Data(max_documents=300, tokenizer="bytes"), training=Training(**TRAINING | training))
    cfg.paths.cache = os.environ["TEXT_CACHE"]
    return cfg


def curve(cfg: TrainConfig, folder: Path) -> dict[int, float]:
    found: dict[int, float] = {}
    loop.run(cfg, alone(), folder, lambda progress: found.update({progress.step: progress.loss}))
    return found


def test_the_loop_goes_on_where_it_was_and_leaves_a_model(tmp_path):
    cfg = settings(tmp_path)
    whole = curve(cfg, tmp_path / "whole")
    assert list(whole) == [5, 10, 15, 20, 25, 30] and whole[30] < whole[5] - 0.5

    class Stop(Exception):
        pass

    def stop(progress: TrainStep) -> None:
        if progress.step == 20:  # before its checkpoint: the newest is of step 15
            raise Stop

    with pytest.raises(Stop):
        loop.run(cfg, alone(), tmp_path / "broken", stop)
    assert sorted(path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()) == [
        "step-0000010",
        "step-0000015",
    ]
    # Stopped again one step after it was continued: more often than the stream reads from its source.
    again = replace(cfg, training=replace(cfg.training, checkpoint_every=1, log_every=1))
    for at in (16, 17, 18):

        def stop_at(progress: loop.Progress, at: int = at) -> None:
            if progress.step > at:
                raise Stop

        with pytest.raises(Stop):
            loop.run(again, alone(), tmp_path / "broken", stop_at)
    rest = curve(cfg, tmp_path / "broken")
    rest[20] = whole[20] if 20 in rest else 0.0  # its mean is over the steps since step 18
    assert rest == {step: loss for step, loss in whole.items() if step > 15}  # bit for bit
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "broken" / "export")
    reread = build(ModelSpec(str(tmp_path / "whole" / "export"), vocab_size=256, seq_len=16))
    assert all(torch.equal(a, b) for a, b in zip(exported.parameters(), reread.parameters(), strict=True))


def test_a_checkpoint_of_another_corpus_or_model_is_refused(tmp_path):
    curve(settings(tmp_path, steps=5), tmp_path / "run")
    with pytest.raises(DataError, match="another corpus"):
        curve(replace(settings(tmp_path, steps=10), data=Data(max_documents=299, tokenizer="bytes")), tmp_path / "run")
    with pytest.raises(DataError, match="another model"):
        curve(settings(tmp_path, steps=10, model="gpt2-1M"), tmp_path / "run")


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["training.engine=adamw"], "engine='adamw': must be one of plain, ddp"),
        (["training.engine=ddp", "training.ranks=3"], "must divide by ranks * accumulate (3 * 1); use 9"),
        (["training.ranks=2"], "engine=plain is one process"),
        (["training.engine=ddp", "training.ranks=4", "training.min_ranks=2", "training.batch_size=4"], "[3] do not"),
        (["training.gpus_per_rank=2"], "more GPUs are more ranks"),
        (["data=files", "data.files=/no/such/texts"], "no file matches"),
    ],
)
def test_impossible_settings_are_refused(overrides, words):
    from raytensor.jobs.train import train_main

    with pytest.raises(ConfigError) as caught:
        train_main([*overrides, "dry_run=true"])
    assert words in str(caught.value)


def command(runs: Path, *more: str) -> list[str]:
    fixed = [f"training.{key}={value}" for key, value in TRAINING.items()]
    return [
        sys.executable,
        "-m",
        "raytensor",
        "train",
        "name=job",
        f"paths.runs={runs}",
        f"paths.cache={os.environ['TEXT_CACHE']}",
        "data.tokenizer=bytes",
        "data.max_documents=300",
        "cluster.num_cpus=4",
        *fixed,
        *more,
    ]


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return clean | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_a_worker_is_killed_and_the_job_ends_on_the_same_curve(tmp_path):
    expected = curve(settings(tmp_path), tmp_path / "alone")
    process = subprocess.Popen(
        command(tmp_path, "training.engine=ddp", "training.ranks=2"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    progress, end = tmp_path / "job" / "training.jsonl", time.monotonic() + 180
    while (
        not any(line.get("step", 0) >= 15 for line in lines(progress))
        and process.poll() is None
        and time.monotonic() < end
    ):
        time.sleep(0.02)
    os.kill(lines(progress)[0]["pids"][1], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    starts = [line["pids"] for line in lines(progress) if "pids" in line]
    assert len(starts) == 2 and not set(starts[0]) & set(starts[1]), output
    assert not any(os.path.exists(f"/proc/{pid}") for pids in starts for pid in pids)
    steps = [event for event in read_events(tmp_path / "job" / "events.jsonl") if isinstance(event, TrainStep)]
    assert steps[-1].step == 30 and all(event.loss == pytest.approx(expected[event.step], abs=CLOSE) for event in steps)
    summary = json.loads((tmp_path / "job" / "summary.json").read_text())
    assert summary["stopped"] == "finished" and summary["steps"] == 30 and summary["heldout_loss"] < 5
    assert (tmp_path / "job" / "export" / "model.safetensors").exists() and "<svg" in (
        tmp_path / "job" / "report.html"
    ).read_text()
    refused = subprocess.run(command(tmp_path), env=environment(), capture_output=True, text=True, timeout=240)
    assert refused.returncode == 1 and "resume=auto" in refused.stderr
    # Nothing whole to go on from: one group finds out, and no other is tried.
    for shard in (tmp_path / "job" / "checkpoints").glob("step-*/model-00002-of-00002.safetensors"):
        shard.unlink()
    again = command(tmp_path, "training.engine=ddp", "training.ranks=2", "training.steps=40", "resume=auto")
    refused = subprocess.run(again, env=environment(), capture_output=True, text=True, timeout=120)
    assert refused.returncode == 1 and "raytensor train: no checkpoint is whole: the checkpoint " in refused.stderr
    assert len([line for line in lines(progress) if "pids" in line]) == 3
