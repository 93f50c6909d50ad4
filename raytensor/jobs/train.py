"""The `train` job: one large miner's model, from configuration to a folder that transformers opens.

In: the command line. Out: an exit status and a run folder: config.yaml, events.jsonl, training.jsonl, checkpoints/,
export/, summary.json, report.html. Waits for: the training. Knows nothing of how a step is made (training/).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raytensor import __version__, config
from raytensor.config.train import TrainConfig, Training
from raytensor.errors import RayTensorError
from raytensor.telemetry import events
from raytensor.telemetry.event_log import EventLog, read_events
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder, new_name
from raytensor.telemetry.training_view import TrainingView

HELP = """usage: raytensor train [group=choice] [key=value] ...

Trains one causal language model with Ray Train: on this machine, or on the cluster that RAY_ADDRESS names. Lost workers
are replaced and go on from the newest checkpoint. At the end there is a folder that transformers opens, and that a miner
of `raytensor run` can start from.

examples:
  raytensor train name=small                                   1M parameters on this machine, a few minutes
  raytensor train name=small resume=auto training.steps=400    go on with a run that ended or was stopped
  raytensor train training.model=gpt2-124M training.gpus_per_rank=1 training.precision=bf16 training.seq_len=1024
  raytensor train training.engine=fsdp2 training.ranks=8 training.gpus_per_rank=1 training.model=8B ...
  raytensor train training.engine=zero3 training.ranks=2 training.min_ranks=1    elastic: goes on with one rank
  raytensor train training.model=/models/some training.lora_rank=16              adapters on a model of your own
  raytensor train dry_run=true                                 show the configuration, the model's size, the resources
  raytensor run "miners.profiles=[{model: runs/small/export}]"  a miner that starts from the result
"""


def train_main(argv: Sequence[str]) -> int:
    """`raytensor train ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("train", HELP, argv), end="")
        return 0
    cfg: TrainConfig = config.compose("train", list(argv))
    from raytensor.data import corpus

    corpus.refuse_missing(cfg.data)
    parameters = _parameters(cfg)
    if cfg.dry_run:
        print(_dry_run(cfg, parameters), end="")
        return 0
    return play(cfg, parameters)


def play(cfg: TrainConfig, parameters: int) -> int:
    """Train a model of so many parameters to the last step. Returns 0 when it finished, 130 when it was stopped."""
    name = cfg.name or new_name(Path(cfg.paths.runs))
    with (
        RunFolder(Path(cfg.paths.runs) / name, cfg.resume) as folder,
        EventLog(folder.events) as log,
        TrainingView(folder.path) as view,
    ):
        meters = Meters()

        def show(event: events.Event) -> None:
            log.append(event)
            view.show(event)
            meters.record(event)

        folder.write_config(cfg)
        show(events.Started(name=name, rounds=0, seed=cfg.seed, version=__version__))
        reason = "finished"
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _train(cfg, parameters, folder, show)
        except KeyboardInterrupt:
            reason = "interrupted"
        except RayTensorError as error:
            reason = str(error)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            show(events.Stopped(reason=reason))
        summary = _summary(cfg, folder, reason)
        folder.write_summary(summary)
        from raytensor.telemetry.training_report import write_training_report  # matplotlib loads after the first line

        write_training_report(folder.path, summary)
        print(
            f"\n{folder.path}: held-out loss {_or(summary['heldout_loss'])}, training loss {_or(summary['loss'])} nats per token"
        )
        if reason == "finished":
            print(
                f"model:  {folder.path / 'export'}   (from_pretrained opens it; miners.profiles=[{{model: {folder.path / 'export'}}}])"
            )
            print(f"report: {folder.report}")
        else:
            print(f"go on:  raytensor train name={name} resume=auto (and the settings you gave)")
    return 0 if reason == "finished" else 130


def _train(cfg: TrainConfig, parameters: int, folder: RunFolder, show: Callable[[events.Event], None]) -> None:
    from raytensor import cluster

    show(events.Phase(text="starting Ray"))
    try:
        local = cluster.connect(cfg.cluster)
        cluster.check(
            needs(cfg), "training.ranks or training.min_ranks, training.cpus_per_rank, training.gpus_per_rank"
        )
        show(
            events.Phase(
                text=f"{'Ray started' if local else 'joined the Ray cluster'}; {cfg.training.model} with {parameters:,} parameters, {cfg.training.engine} on {cfg.training.ranks} rank(s)"
            )
        )
        folder.save_state({"job": "train"})  # from here on there is something to go on from

        from raytensor.telemetry.tracker import make_tracker
        from raytensor.training import trainer

        tracker = make_tracker(cfg.tracker, folder.path, folder.name)
        tail = Tail(folder.path / trainer.PROGRESS, show, tracker)
        try:
            with tail:
                trainer.fit(cfg, folder.path)
        finally:
            tracker.finish(timeout_s=2.0)
    finally:
        cluster.disconnect()


class Tail:
    """Follows training.jsonl from its present end: each line becomes an event. A context manager; one thread."""

    def __init__(self, path: Path, show: Callable[[events.Event], None], tracker: Any, every_s: float = 0.5) -> None:
        self._path, self._show, self._tracker, self._every_s = path, show, tracker, every_s
        self._at = path.stat().st_size if path.exists() else 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="training-progress", daemon=True)

    def __enter__(self) -> Tail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=10)

    def _follow(self) -> None:
        while not self._done.wait(self._every_s):
            self._read()
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        for line in data[:whole].splitlines():
            found = json.loads(line)
            if "pids" in found:
                self._show(
                    events.Phase(
                        text=f"{found['ranks']} rank(s) joined, processes {', '.join(map(str, found['pids']))}"
                    )
                )
                continue
            if "refusal" in found:
                continue  # `fit` raises it
            if "warning" in found:
                self._show(events.Warned(text=found["warning"]))
                continue
            self._show(events.TrainStep(**found))
            numbers = {
                f"train/{key}": found[key]
                for key in ("loss", "rate", "tokens_per_s", "ranks", "mfu", "heldout")
                if found[key] is not None
            }
            self._tracker.log(numbers, step=found["step"])


def needs(cfg: TrainConfig) -> list[Any]:
    """What the training asks of the cluster: as many ranks as it can't go on without."""
    from raytensor.cluster import Need

    training = cfg.training
    count = training.ranks if training.min_ranks is None else training.min_ranks
    return [Need("ranks", count, training.cpus_per_rank, training.gpus_per_rank)]


def _parameters(cfg: TrainConfig) -> int:
    """Parameters of the model. Raises `ConfigError` when it can't be built."""
    from raytensor.training.loop import spec_of
    from raytensor.training.models import refuse_unusable

    return refuse_unusable(spec_of(cfg, 256 if cfg.data.tokenizer == "bytes" else cfg.data.vocab_size))


def _summary(cfg: TrainConfig, folder: RunFolder, reason: str) -> dict[str, Any]:
    steps = [event for event in read_events(folder.events) if isinstance(event, events.TrainStep)]
    heldout = [event.heldout for event in steps if event.heldout is not None]
    training: Training = cfg.training
    return {
        "name": folder.name,
        "stopped": reason,
        "model": training.model,
        "engine": training.engine,
        "ranks": steps[-1].ranks if steps else None,
        "steps": steps[-1].step if steps else 0,
        "steps_planned": training.steps,
        "loss": steps[-1].loss if steps else None,
        "heldout_loss": heldout[-1] if heldout else None,
        "tokens_per_s": sorted(event.tokens_per_s for event in steps)[len(steps) // 2] if steps else None,
        "tokens": steps[-1].step * training.batch_size * training.seq_len if steps else 0,
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _dry_run(cfg: TrainConfig, parameters: int) -> str:
    from raytensor.cluster import bill

    address = cfg.cluster.address or os.environ.get("RAY_ADDRESS")
    where = (
        f"the cluster at {address}"
        if address
        else f"a local Ray with {cfg.cluster.num_cpus or max(2, os.cpu_count() or 1)} CPUs"
    )
    lines = [
        f"model {cfg.training.model}: {parameters:,} parameters",
        f"resources per role, on {where}:",
        *bill(needs(cfg)).splitlines(),
    ]
    return config.to_yaml(cfg) + "\n" + "".join(f"# {line}\n" for line in lines)


def _or(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
