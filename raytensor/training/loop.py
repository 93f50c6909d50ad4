"""The training loop of one rank: batches from the stream, steps of the engine, checkpoints, progress.

    Batches -> Engine.train_steps -> TrainStep;   every `checkpoint_every` steps -> <folder>/checkpoints/step-<n>/

In: a `TrainConfig`, this rank's place, the run folder (which all ranks see). Out: checkpoints, an export in
transformers' format, `TrainStep` events through `report`. A new process continues from the newest intact checkpoint in
the folder, on any number of ranks and with any engine. Knows nothing of Ray.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from raytensor.config.optimizers import ENGINES, OPTIMIZERS
from raytensor.config.train import TrainConfig
from raytensor.data import assign, pretrained, tokenizer
from raytensor.data.text import load_tokenizer
from raytensor.errors import DataError
from raytensor.storage import copy, join, open_folder, refuse_unreachable
from raytensor.telemetry.events import TrainStep
from raytensor.training import batches, checkpoint, devices, footprint, heldout, models, saving, trace
from raytensor.training import engine as engines
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import Ranks
from raytensor.training.recipe import Recipe
from raytensor.training.survival import Survival
from raytensor.types import Memory

# Dense bfloat16 peak of a device in FLOP/s, by a part of its name (data sheets of the vendor, without sparsity).
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}


class CannotResume(DataError):
    """The training can't continue from what is in the folder. Raised on every rank alike, before the first step."""


def spec_of(cfg: TrainConfig, vocab_size: int) -> ModelSpec:
    """The model of a configuration."""
    of, seed = cfg.training, assign.seed_of(cfg.seed, "model", "train")
    own = {"pretrained": of.pretrained, "lora_rank": of.lora_rank}
    return ModelSpec(of.model, vocab_size=vocab_size, seq_len=of.seq_len, seed=seed, **own)


def refuse_unusable(cfg: TrainConfig) -> int:
    """Set `cfg.data.tokenizer` to the one that the training takes. Returns the number of the model's parameters.

    Raises `ConfigError` for a model that can't be built, or was trained on other ids.
    """
    if cfg.training.store:
        refuse_unreachable(cfg.training.store, "training.store")
    models.refuse_unusable(spec_of(cfg, 1))  # a name that means nothing is refused as a model, not as a tokenizer
    settings = {"where": "training.model", "trained": cfg.training.pretrained}
    pretrained.settle(cfg.data, cfg.models(), cfg.paths.cache, **settings)
    spec = spec_of(cfg, tokenizer.vocab_size_of(cfg.data.tokenizer, cfg.data.vocab_size))
    found = models.refuse_unusable(spec)
    if ENGINES[cfg.training.engine].same_rows:
        models.refuse_uncuttable(models.build(spec, meta=True), cfg.training.ranks)
    return found


def memory(cfg: TrainConfig) -> Memory:
    """The memory that a rank needs, with the fewest ranks. `refuse_unusable` has accepted the configuration."""
    ranks = cfg.training.min_ranks or cfg.training.ranks
    of, vocab_size = cfg.training, tokenizer.vocab_size_of(cfg.data.tokenizer, cfg.data.vocab_size)
    recipe = Recipe.of(of, document_end=0 if cfg.data.document_masks else None)
    row = ENGINES[of.engine]
    shares = 1 if row.same_rows else ranks  # of the rows
    rows, most = max(1, of.batch_size // (shares * of.accumulate)), -(-of.heldout_rows // shares)
    found = trace.sizes(spec_of(cfg, vocab_size), recipe, rows, of.seq_len, casts=row.casts, loss_rows=most)
    more = {
        "accumulate": of.accumulate,
        "bf16": of.precision == "bf16",
        "gpu": of.gpus_per_rank > 0,
        "shards": of.shard_ranks,
    }
    return footprint.of_rank(of.engine, found, ranks, moments=OPTIMIZERS[of.optimizer].moments, **more)


Warn = Callable[[str], None]


def run(cfg: TrainConfig, ranks: Ranks, folder: Path, report: Callable[[TrainStep], None], warn: Warn = print) -> None:
    """Train to the last step, then export.

    report  called on every rank, at the same steps.
    warn    called on the first rank, with a line for each damaged checkpoint that was skipped.

    Raises `CannotResume` for checkpoints that are damaged, or of another model, optimizer or corpus, `Diverged` when
    the training has gone back to a checkpoint too often.
    """
    torch.set_num_threads(cfg.cluster.torch_threads)
    transformers.logging.set_verbosity_error()
    training = cfg.training
    coder = _tokenizer(cfg, ranks)
    spec = spec_of(cfg, coder.vocab_size)
    stream = batches.of(cfg, coder, ranks.with_all_rows() if ENGINES[training.engine].same_rows else ranks)
    model = models.build(spec)
    flops = models.flops_per_token(model, training.seq_len)
    end = coder.end if cfg.data.document_masks else None
    recipe = Recipe.of(training, total_steps=training.steps, document_end=end)
    engine = engines.make(training.engine, model, recipe, ranks)
    points = join(store_of(cfg, folder), "checkpoints")
    try:
        position = _resume(points, engine, ranks, warn)
        if position is not None:
            _refuse_other_tokenizer(position, coder)
            stream.restore(position["stream"])
    except DataError as error:
        raise CannotResume(str(error)) from error
    exam = heldout.draw(cfg, coder)
    limits = {"max_skipped": training.max_skipped, "max_rollbacks": training.max_rollbacks}
    survival = Survival(points, ranks, warn, keep=training.keep, **limits)
    saver = saving.Saver(ranks)
    with stream, saver:
        while engine.steps < training.steps:
            began, before = time.perf_counter(), engine.steps
            intervals = (training.log_every, training.checkpoint_every, training.heldout_every)
            due = min(_next(before, every, training.steps) for every in intervals)
            loss = engine.train_steps((stream.batch() for _ in range(due - before)), own_rows=True)
            seconds = time.perf_counter() - began
            last = due == training.steps
            measures = last or _is_due(due, training.heldout_every)
            found = exam.measure(engine) if measures else None
            per_s = (due - before) * training.batch_size * training.seq_len / seconds
            eta_s = (training.steps - due) * training.batch_size * training.seq_len / per_s
            mfu = _utilisation(per_s * flops / ranks.size, ranks.device)
            rate, epoch = recipe.rate(due), stream.epoch
            mean, error = (found.mean, found.error) if found is not None else (None, None)
            numbers = (due, training.steps, loss, rate, per_s, eta_s, ranks.size, epoch, mfu, mean)
            tokens, health = due * training.batch_size * training.seq_len, engine.health
            more = {"gradient_norm": health.gradient_norm, "skipped": health.skipped, "heldout_error": error}
            report(TrainStep(*numbers, tokens=tokens, **more))
            sound = survival.is_sound(engine, loss, mean)
            if sound and (last or _is_due(due, training.checkpoint_every)):
                position = {"stream": stream.state(), "tokenizer": coder.digest()}
                place = join(points, checkpoint.step_name(due))
                saver.save(place, partial(engine.snapshot, position), partial(survival.prune, due))
                survival.taken(due)
            if not sound and survival.must_go_back(engine, last=last):
                saver.wait()
                survival.go_back(engine)
    weights = engine.weights()
    if ranks.first:
        models.export(spec, weights, folder / "export", coder.save)
        if cfg.training.store:
            copy(folder / "export", join(store_of(cfg, folder), "export"), last="config.json")
    ranks.gather(None)


def store_of(cfg: TrainConfig, folder: Path) -> str:
    """The place of a run's checkpoints and export: its folder, or its name below `training.store`."""
    return join(cfg.training.store, folder.name) if cfg.training.store else str(folder)


def _resume(points: str, engine: engines.Engine, ranks: Ranks, warn: Warn) -> Mapping[str, Any] | None:
    """Restore the newest intact checkpoint. Returns its position; None when there is no checkpoint."""
    kept = open_folder(points)
    steps = ranks.of_first(lambda: checkpoint.steps_in(kept)[::-1])
    if not steps:
        return None
    places = [join(points, checkpoint.step_name(step)) for step in steps]
    place, position, damaged = checkpoint.load_newest(places, engine.load)
    for step, why in zip(steps, damaged, strict=False) if ranks.first else ():
        warn(f"{why}; continuing from {place.rpartition('/')[2]}")
        # Kept for inspection, under a name that `prune` does not count.
        kept.rename(checkpoint.step_name(step), f"damaged-{checkpoint.step_name(step)}")
    return position


def _refuse_other_tokenizer(position: Mapping[str, Any], coder: tokenizer.Tokenizer) -> None:
    """Raises `DataError` when a checkpoint was trained on other ids; older ones do not say."""
    if position.get("tokenizer", coder.digest()) != coder.digest():
        cause = "the checkpoint was trained on the ids of another tokenizer (its files or its cache changed)"
        raise DataError(f"{cause}\n  fix: restore data.tokenizer as it was, or start a new run")


def _next(step: int, every: int, last: int) -> int:
    return min(last, (step // every + 1) * every) if every else last


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _tokenizer(cfg: TrainConfig, ranks: Ranks) -> tokenizer.Tokenizer:
    """The first rank's tokenizer, on all ranks: another node may have another cache, another corpus, other files."""
    found: list[tokenizer.Tokenizer] = []  # the first rank exports the one that it has loaded

    def load() -> Any:
        found.append(load_tokenizer(cfg.data, cfg.paths.cache))
        return found[0].packed()

    packed = ranks.of_first(load)
    return found[0] if found else tokenizer.unpack(packed)


def _utilisation(flops_per_s: float, device: torch.device) -> float | None:
    if not devices.is_gpu(device):
        return None
    name = torch.cuda.get_device_name(device)
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    return flops_per_s / peak if peak else None
