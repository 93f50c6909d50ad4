"""The `train` job: trains one large model and writes a folder that transformers opens.

In: the command line. Out: an exit status and a run folder: config.yaml, events.jsonl, training.jsonl, checkpoints/,
export/, summary.json, report.html. Waits for: the training. Knows nothing of how a step is made (training/).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raytensor import config
from raytensor.config.train import TrainConfig, Training
from raytensor.data import corpus
from raytensor.jobs.session import Session
from raytensor.supervised import SupervisedThread, tell
from raytensor.telemetry import events
from raytensor.telemetry.event_log import read_events
from raytensor.telemetry.tracker import make_tracker
from raytensor.telemetry.training_view import TrainingView
from raytensor.types import Memory, Need

log = logging.getLogger(__name__)

HELP = """usage: raytensor train [group=choice] [key=value] ...

Trains one causal language model with Ray Train: on this machine, or on the cluster that RAY_ADDRESS names. Lost workers
are replaced and resume from the newest checkpoint. The result is a folder that transformers opens and that a miner of
`raytensor run` can start from.

examples:
  raytensor train name=small                                   1M parameters on this machine, a few minutes
  raytensor train name=small resume=auto training.steps=400    continue a run that ended or was stopped
  raytensor train training.model=gpt2-124M training.gpus_per_rank=1 training.precision=bf16 training.seq_len=1024
  raytensor train training.engine=fsdp2 training.ranks=8 training.gpus_per_rank=1 training.model=8B ...
  raytensor train training.engine=zero3 training.ranks=2 training.min_ranks=1    elastic: continues with one rank
  raytensor train training.model=/models/some training.lora_rank=16              adapters on a model of your own
  raytensor train dry_run=true      check everything, print the configuration, the model's size, the resources
  raytensor run "miners.profiles=[{model: runs/small/export}]"  a miner that starts from the result
"""


def train_main(argv: Sequence[str]) -> int:
    """`raytensor train ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("train", HELP, argv), end="")
        return 0
    cfg: TrainConfig = config.compose("train", list(argv))
    from raytensor.jobs import preflight  # imports Ray, which `--help` does not need

    with preflight.patience("checking the data and the model"):
        parameters, memory = _sizes(cfg)
    if not cfg.dry_run:
        return play(cfg, parameters, memory)
    lines = [f"model {cfg.training.model}: {parameters:,} parameters"]
    lines += preflight.resources(cfg.cluster, lambda found: needs(cfg, memory))
    print(f"{config.to_yaml(cfg)}\n{preflight.as_comments(lines)}", end="")
    return 0


def play(cfg: TrainConfig, parameters: int, memory: Memory) -> int:
    """Train a model to the last step. Returns 0 when it finished, 130 when it was stopped."""
    session = Session("train", cfg, lambda one: TrainingView(one.folder.path), resume=cfg.resume)
    return session.run(lambda one: _train(cfg, parameters, memory, one), lambda one, reason: _sum_up(cfg, one, reason))


def _train(cfg: TrainConfig, parameters: int, memory: Memory, session: Session[TrainingView]) -> None:
    from raytensor.training import trainer  # imports Ray and Ray Train, after the first line

    training, folder = cfg.training, session.folder
    session.phase("starting Ray (takes about 7 s)")
    local = session.stack.enter_context(trainer.connected(cfg.cluster, needs(cfg, memory)))
    session.save(job="train")  # from here on there is something to resume
    session.begin()
    what = f"{training.model} with {parameters:,} parameters, {training.engine} on {training.ranks} rank(s)"
    session.phase(f"{'Ray started' if local else 'joined the Ray cluster'}; {what}; starting the workers")
    tracker = make_tracker(cfg.tracker, folder.path, folder.name)
    session.stack.callback(tracker.finish, timeout_s=2.0)
    with ProgressTail(folder.path / trainer.PROGRESS, session.show, tracker):
        # In a thread: Ray Train replaces the main thread's handler of Ctrl-C.
        session.blocking(lambda: trainer.fit(cfg, folder.path))


def _sum_up(cfg: TrainConfig, session: Session[TrainingView], reason: str) -> None:
    folder = session.folder
    summary = _summary(cfg, session, reason)
    folder.write_summary(summary)
    heldout, loss, export = _or(summary["heldout_loss"]), _or(summary["loss"]), folder.path / "export"
    if reason != "finished":  # drawing takes seconds, and a stop must not
        print(f"\n{folder.path}: held-out loss {heldout}, training loss {loss} nats per token")
        print(f"go on:  raytensor train name={folder.name} resume=auto (and the settings you gave)")
        return
    from raytensor.telemetry.training_report import write_training_report  # matplotlib, after the first line

    write_training_report(folder.path, summary)
    print(f"\n{folder.path}: held-out loss {heldout}, training loss {loss} nats per token")
    print(f"model:  {export}   (from_pretrained opens it; miners.profiles=[{{model: {export}}}])")
    print(f"report: {folder.report}")


LOWER = (
    "a smaller training.model, training.batch_size or training.seq_len; training.activation_checkpointing=true; "
    "training.engine=fsdp2 with more training.ranks; training.precision=bf16 on GPUs"
)


class ProgressTail:
    """Follows training.jsonl from its present end in a thread: each line becomes an event. A context manager."""

    def __init__(self, path: Path, show: Callable[[events.Event], None], tracker: Any, *, every_s: float = 0.5) -> None:
        self._path, self._show, self._tracker, self._every_s = path, show, tracker, every_s
        self._at = path.stat().st_size if path.exists() else 0  # bytes that were read
        self._thread = SupervisedThread("training-progress", self._step)

    def __enter__(self) -> ProgressTail:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.close(timeout_s=10)
        if not self._thread.alive:
            try:
                self._read()  # what came since the last look
            except Exception:  # telemetry: a file that can't be read does not fail the training
                log.exception("the rest of %s can't be shown", self._path)

    def _step(self, thread: SupervisedThread) -> None:
        thread.wait(self._every_s)
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            lines = file.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._at += len(line)  # before it is taken: one that can't be shown holds back no other
            self._take(json.loads(line))

    def _take(self, line: Mapping[str, Any]) -> None:
        if "pids" in line:
            processes = ", ".join(map(str, line["pids"]))
            self._show(events.Phase(text=f"{line['ranks']} rank(s) joined, processes {processes}"))
        elif "warning" in line:
            self._show(events.Warned(text=line["warning"]))
        elif "step" in line:  # the others are refusals, which `fit` raises
            self._show(events.TrainStep(**line))
            keys = ("loss", "rate", "tokens", "gradient_norm", "skipped", "tokens_per_s", "ranks", "mfu", "heldout")
            numbers = {f"train/{key}": line[key] for key in keys if line.get(key) is not None}
            tell("tracker", self._tracker.log, numbers, step=line["step"])


def needs(cfg: TrainConfig, memory: Memory | None = None) -> list[Need]:
    """What the training asks of a cluster: the number of ranks below which it can't continue."""
    training = cfg.training
    count, setting = (training.ranks, "ranks") if training.min_ranks is None else (training.min_ranks, "min_ranks")
    settings = f"training.{setting}, training.cpus_per_rank or training.gpus_per_rank"
    return [Need("ranks", count, training.cpus_per_rank, training.gpus_per_rank, settings, memory, LOWER)]


def _sizes(cfg: TrainConfig) -> tuple[int, Memory]:
    """Parameters of the model and memory of a rank, and the tokenizer that fits the model in `cfg`. Raises
    `ConfigError` when the model can't be built or was trained on another tokenizer, or when local data is missing."""
    corpus.refuse_missing(cfg.data)  # before seconds of imports
    from raytensor.training import loop  # torch and transformers: a `--help` must not wait for them

    return loop.refuse_unusable(cfg), loop.memory(cfg)


def _summary(cfg: TrainConfig, session: Session[TrainingView], reason: str) -> dict[str, Any]:
    found = read_events(session.folder.events)
    steps = [event for event in found if isinstance(event, events.TrainStep)]
    heldout = [event.heldout for event in steps if event.heldout is not None]
    training: Training = cfg.training
    newest = steps[-1] if steps else None
    return {
        "name": session.folder.name,
        "stopped": reason,
        "model": training.model,
        "engine": training.engine,
        "ranks": newest.ranks if newest else None,
        "steps": newest.step if newest else 0,
        "steps_planned": training.steps,
        "loss": newest.loss if newest else None,
        "heldout_loss": heldout[-1] if heldout else None,
        "tokens_per_s": sorted(event.tokens_per_s for event in steps)[len(steps) // 2] if steps else None,
        "tokens": newest.step * training.batch_size * training.seq_len if newest else 0,
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _or(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
