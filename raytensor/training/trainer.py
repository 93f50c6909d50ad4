"""The training loop on Ray Train: workers in a placement group, replaced when one is lost, fewer of them when elastic.

In: a `TrainConfig`, the run folder. Out: what `loop.run` leaves in the folder, and `<folder>/training.jsonl`, a line per
start, `Progress`, warning or refusal, written by the first rank. Waits for: the end of the training.
A lost worker ends all of them; Ray starts a new group, which goes on from the newest checkpoint, at most `max_failures`
times. Checkpoints are the engine's own and go straight to the folder: Ray copies nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

from raytensor.config.train import TrainConfig
from raytensor.errors import ClusterError, DataError, RayTensorError

PROGRESS = "training.jsonl"


def fit(cfg: TrainConfig, folder: Path) -> None:
    """Train to the last step. Raises `ClusterError` with the cause when the workers were lost too often, `DataError` when
    what is in the folder can't be gone on with."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    training = cfg.training
    before = len(_lines(folder))
    resources = {"CPU": training.cpus_per_rank} | ({"GPU": 1} if training.gpus_per_rank else {})
    workers: Any = training.ranks if training.min_ranks is None else (training.min_ranks, training.ranks)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"cfg": cfg, "folder": str(folder)},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=bool(training.gpus_per_rank),
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=30.0,
        ),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if training.gpus_per_rank else "gloo"),
        run_config=RunConfig(
            name=f"attempt-{time.time_ns()}",  # a name that was used before would make it do nothing
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=training.max_failures),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise ClusterError(
            f"the training failed: {_cause(error)}\n  more: Ray's logs, and resume=auto goes on from the newest checkpoint"
        ) from error
    for line in _lines(folder)[before:]:
        if "refusal" in line:
            raise DataError(line["refusal"])


def _work(job: dict[str, Any]) -> None:
    """One worker. Ray Train has made the process group."""
    import ray.train
    import ray.train.torch

    from raytensor.training import loop
    from raytensor.training.ranks import attach

    cfg, folder = job["cfg"], Path(job["folder"])
    device = ray.train.torch.get_device()
    ranks = attach(device)
    pids = ranks.gather(os.getpid())
    if ranks.first:
        _append(folder, {"ranks": ranks.size, "pids": pids})

    def report(progress: loop.Progress) -> None:
        if ranks.first:
            _append(folder, dataclasses.asdict(progress))
        ray.train.report({"step": progress.step, "loss": progress.loss})

    try:
        loop.run(cfg, ranks, folder, report, lambda text: _append(folder, {"warning": text}))
    except loop.CannotResume as error:  # in another group as well: not for Ray to try again
        if ranks.first:
            _append(folder, {"refusal": str(error)})


def _append(folder: Path, line: dict[str, Any]) -> None:
    with (folder / PROGRESS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / PROGRESS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def _cause(error: BaseException) -> str:
    """What a worker raised, without Ray's wrapping."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        inner: BaseException | None = failure
        while inner is not None and not isinstance(inner, RayTensorError):
            inner = inner.__cause__
        if inner is not None:
            return str(inner)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
