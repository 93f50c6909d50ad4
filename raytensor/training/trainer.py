"""The training loop on Ray Train: workers in a placement group, replaced when one is lost, fewer of them when elastic.

In: a `TrainConfig`, the run folder. Out: the files of `loop.run`, and `<folder>/training.jsonl` with one line per
start, step, warning or refusal, written by the first rank. Waits for: the end of the training. When a worker is
lost, all of them end; Ray starts a new group, which continues from the newest checkpoint, at most `max_failures`
times. Checkpoints are the engine's own and are written to the folder directly: Ray copies nothing. Knows nothing of
the terminal.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from raytensor import cluster, disk
from raytensor.config import Cluster
from raytensor.config.train import TrainConfig
from raytensor.data import corpus
from raytensor.errors import ClusterError, ConfigError, DataError, RayTensorError, cause_of
from raytensor.telemetry.events import TrainStep
from raytensor.training import devices, loop
from raytensor.training.ranks import attach
from raytensor.training.survival import Diverged
from raytensor.types import Need

PROGRESS = "training.jsonl"


@contextlib.contextmanager
def connected(cfg: Cluster, needs: Sequence[Need]) -> Iterator[bool]:
    """Ray, with room for `needs`, within the block. Gives whether it was started here. Raises `ClusterError`."""
    try:
        local = cluster.connect(cfg)
        cluster.check(needs, cfg=cfg, local=local)
        yield local
    finally:
        cluster.disconnect()


def fit(cfg: TrainConfig, folder: Path) -> None:
    """Train to the last step. Raises `ClusterError` with the cause when the workers were lost too often, `DataError`
    when the training can't continue from what is in the folder."""
    training = cfg.training
    before = len(_lines(folder))
    resources = {"CPU": training.cpus_per_rank} | ({"GPU": 1} if training.gpus_per_rank else {})
    workers: Any = training.ranks if training.min_ranks is None else (training.min_ranks, training.ranks)
    on_gpu, failures = bool(training.gpus_per_rank), FailureConfig(max_failures=training.max_failures)
    limit_s = int(cfg.cluster.collective_timeout_s)
    name = f"attempt-{time.time_ns()}"  # Ray Train does nothing under a name that was used before
    scaling = {"num_workers": workers, "use_gpu": on_gpu, "resources_per_worker": resources}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"cfg": cfg, "folder": str(folder), "lines": before},
        scaling_config=ScalingConfig(**scaling, elastic_resize_monitor_interval_s=30.0),
        torch_config=TorchConfig(devices.GPU_BACKEND if on_gpu else "gloo", timeout_s=limit_s),
        run_config=RunConfig(name=name, storage_path=str(folder / "ray"), failure_config=failures),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        more = "see Ray's logs; resume=auto continues from the newest checkpoint"
        raise ClusterError(f"the training failed: {_cause(error)}\n  more: {more}") from error
    if why := _refusal(folder, before):
        raise DataError(why)


def _work(job: dict[str, Any]) -> None:
    """The main function of one worker, whose process group Ray Train has made."""
    cfg, folder = job["cfg"], Path(job["folder"])
    if _refusal(folder, job["lines"]):
        return  # an earlier group has found out that none can go on
    ranks = attach(ray.train.torch.get_device())
    pids = ranks.gather(os.getpid())
    if ranks.first:
        _append(folder, {"ranks": ranks.size, "pids": pids})

    def report(progress: TrainStep) -> None:
        if ranks.first:
            _append(folder, dataclasses.asdict(progress))
        ray.train.report({"step": progress.step, "loss": progress.loss})

    try:
        loop.run(cfg, ranks, folder, report, lambda text: _append(folder, {"warning": text}))
    except (
        loop.CannotResume,
        Diverged,
    ) as error:  # on all ranks; another group would fail as well, so Ray must not try again
        if ranks.first:
            _append(folder, {"refusal": str(error)})
    except (DataError, ConfigError) as error:
        if corpus.is_local(cfg.data):  # a hub may answer the next time
            _append(folder, {"refusal": str(error)})
        if ranks.size > 1 or not corpus.is_local(cfg.data):
            raise  # ends ranks that wait for this one


def _refusal(folder: Path, before: int) -> str | None:
    """Why no group can go on, in the lines of this start of the job."""
    return next((line["refusal"] for line in _lines(folder)[before:] if "refusal" in line), None)


def _append(folder: Path, line: dict[str, Any]) -> None:
    disk.append_line(folder / PROGRESS, json.dumps(line))


def _lines(folder: Path) -> list[dict[str, Any]]:
    path = folder / PROGRESS
    return [json.loads(line) for _, line in disk.whole_lines(path)] if path.exists() else []


def _cause(error: BaseException) -> str:
    """The error of a worker, without Ray's wrapping."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        inner: BaseException | None = failure
        while inner is not None and not isinstance(inner, RayTensorError):
            inner = inner.__cause__
        if inner is not None:
            return str(inner)
    return cause_of(error)
