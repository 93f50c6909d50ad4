"""The `train` job's settings and what it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from raytensor.config.checks import Checks, absolute_folder, training_mistakes
from raytensor.config.groups import Cluster, Data, Paths, Tracker


@dataclass
class Training:
    # Model: a size (1M 5M 20M 124M 350M 1.2B 8B: a Llama), gpt2-SIZE, qwen2-SIZE, a folder in transformers' format, or a
    # hub name.
    model: str = "1M"
    # Take a folder's or hub model's weights; false takes its shape with random weights.
    pretrained: bool = True
    # Above 0: the weights are frozen and low-rank adapters of this rank are trained (needs raytensor[lora]).
    lora_rank: int = 0
    # Optimizer steps.
    steps: int = 200
    # Sequences per step, over all ranks.
    batch_size: int = 8
    # Tokens of a sequence.
    seq_len: int = 128
    # {optimizers}
    optimizer: str = "adamw"
    # Learning rate after the warm-up.
    lr: float = 3e-3
    # Steps of linear warm-up.
    warmup_steps: int = 20
    # constant | cosine (down to min_lr_share of lr at the last step)
    schedule: str = "cosine"
    # Share of lr that a cosine schedule ends at.
    min_lr_share: float = 0.1
    # Weight decay of matrices.
    weight_decay: float = 0.1
    # Largest norm of a step's gradient.
    clip: float = 1.0
    # How the model is trained and spread over ranks: {engines}
    engine: str = "plain"
    # Processes that train together (Ray Train workers).
    ranks: int = 1
    # Elastic: go on with as few as this when a node is lost, and grow again when there is room; null is not elastic.
    min_ranks: int | None = None
    # CPUs that each rank reserves.
    cpus_per_rank: float = 0.5
    # GPUs that each rank reserves: 1, or 0 to train on CPUs.
    gpus_per_rank: int = 0
    # fp32 | bf16
    precision: str = "fp32"
    # Forwards and backwards per step on each rank.
    accumulate: int = 1
    # Compute activations again in the backward instead of keeping them.
    activation_checkpointing: bool = False
    # torch.compile; null: on GPUs only.
    compile: bool | None = None
    # Steps between checkpoints (the last step always writes one).
    checkpoint_every: int = 50
    # Checkpoints that are kept.
    keep: int = 2
    # Steps between lines of progress.
    log_every: int = 10
    # Steps between measurements of the held-out loss (the last step always measures); 0 never.
    heldout_every: int = 50
    # Held-out texts that it is measured on.
    heldout_rows: int = 256
    # Times that lost workers are replaced before the job fails.
    max_failures: int = 5


@dataclass
class TrainConfig:
    # Name of the run and of its folder under paths.runs; null makes one from the time.
    name: str | None = None
    # Seed of the initial weights and of the held-out questions.
    seed: int = 0
    # never: refuse a folder that exists. auto: go on from its newest checkpoint if it exists. must: refuse without one.
    resume: str = "never"
    # Print the resolved configuration, the model's size and the resources, then stop.
    dry_run: bool = False
    paths: Paths = field(default_factory=Paths)
    cluster: Cluster = field(default_factory=Cluster)
    data: Data = field(default_factory=Data)
    training: Training = field(default_factory=Training)
    tracker: Tracker = field(default_factory=Tracker)


def check(cfg: TrainConfig) -> None:
    """Refuse impossible settings. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    checks, training = Checks(cfg), cfg.training
    need = checks.need
    checks.positive(
        "cluster.start_timeout_s", "cluster.torch_threads", "cluster.num_cpus", "data.vocab_size", "data.max_documents"
    )
    checks.positive(
        *(
            f"training.{key}"
            for key in (
                "steps",
                "batch_size",
                "lr",
                "clip",
                "checkpoint_every",
                "keep",
                "log_every",
                "heldout_rows",
                "min_ranks",
            )
        )
    )
    need(
        cfg.name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", cfg.name) is not None,
        "name",
        "is a folder name: letters, digits, '.', '_' and '-', starting with a letter or digit",
    )
    need(cfg.seed >= 0, "seed", "must be 0 or greater")
    checks.one_of("resume", ("never", "auto", "must"))
    need(
        cfg.resume == "never" or cfg.name is not None, "resume", "needs the name of the run to go on from: add name=..."
    )
    need(0.0 < cfg.data.heldout_share < 1.0, "data.heldout_share", "must lie between 0 and 1")
    checks.one_of("data.tokenizer", ("bpe", "bytes"))
    need(
        cfg.data.tokenizer == "bytes" or 257 <= cfg.data.vocab_size <= 65536,
        "data.vocab_size",
        "must lie between 257 and 65536",
    )
    checks.one_of("training.schedule", ("constant", "cosine"))
    need(2 <= training.seq_len <= 65536, "training.seq_len", "must lie between 2 and 65536")
    for key in ("warmup_steps", "weight_decay", "min_lr_share", "heldout_every", "max_failures"):
        need(getattr(training, key) >= 0, f"training.{key}", "must be 0 or greater")
    training.model = absolute_folder(training.model) or training.model
    cfg.data.files = cfg.data.files and str(Path(cfg.data.files).expanduser().absolute())
    for mistake in training_mistakes(training):
        checks.add(f"training.{mistake}")
    if training.min_ranks is not None:
        need(
            training.min_ranks <= training.ranks,
            "training.min_ranks",
            f"must be at most training.ranks ({training.ranks})",
        )
        uneven = [
            n
            for n in range(max(1, training.min_ranks), training.ranks + 1)
            if training.batch_size % (n * max(1, training.accumulate))
        ]
        need(
            not uneven,
            "training.batch_size",
            f"must divide by accumulate times every number of ranks that an elastic run may have; {uneven} do not",
        )
    checks.one_of("tracker.kind", ("none", "wandb"))
    checks.one_of("tracker.mode", ("offline", "online", "disabled"))
    checks.raise_all()
