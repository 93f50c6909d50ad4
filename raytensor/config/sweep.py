"""The `sweep` job's settings and what it refuses.

What a trial's distributions say (`search.space`) is read and checked in `raytensor.jobs.sweep.space`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import Checks, training_mistakes
from raytensor.config.groups import Cluster, Data, MinerProfile, Paths
from raytensor.config.mechanisms import Mechanism, check_mechanism

METHODS = ("random", "grid", "optuna")
SCHEDULERS = ("asha", "pbt", "none")
RANKINGS = ("heldout_loss", "incentive")


def _profile() -> MinerProfile:
    return MinerProfile(hidden=64, layers=2, heads=2, steps=20)


@dataclass
class Lab:
    """What all miners of a sweep share, as in the `miners` section of a run."""

    # Tokens of a training sequence.
    seq_len: int = 32
    # Held-out texts that each trial's held-out loss is measured on, the same for all.
    heldout_rows: int = 512
    # Host actors that train the small models, several in each matrix product; null takes as many as fit.
    num_hosts: int | None = None
    # CPUs that each host actor reserves.
    cpus_per_host: float = 0.8
    # GPUs that each host actor reserves.
    gpus_per_host: float = 0.0
    # Seconds that one round of a trial may take.
    round_timeout_s: float = 600.0


@dataclass
class Search:
    # What trials vary: dotted settings of this job -> {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]},
    # {choice: [...]} or {grid: [...]}.
    space: dict[str, Any] = field(default_factory=dict)
    # random | grid (every combination; all keys are choices or grids) | optuna (needs raytensor[sweep])
    method: str = "random"
    # Trials; grid has as many as there are combinations.
    num_trials: int = 24


@dataclass
class Scheduler:
    # asha stops weak trials early; pbt lets weak trials go on from strong ones, with changed settings; none trains all.
    kind: str = "asha"
    # Rounds before the first decision (asha), or between two changes (pbt).
    grace: int = 1
    # asha: one in so many goes on at each decision.
    reduction: float = 3.0


@dataclass
class SweepConfig:
    # Name of the sweep and of its folder under paths.runs; null makes one from the time.
    name: str | None = None
    # Rounds that a trial trains at most, `profile.steps` optimizer steps each.
    rounds: int = 9
    # Seed of everything random: the trials' settings, their initial models, their data (the same for all trials).
    seed: int = 0
    # never: refuse a folder that exists. auto: go on from it if it exists. must: refuse if there is nothing to go on from.
    resume: str = "never"
    # Print the trials and the resources, then stop.
    dry_run: bool = False
    # What is best: heldout_loss, or the incentive that trials earn side by side as miners of one subnet.
    rank_by: str = "heldout_loss"
    # Trials at a time; null takes what the cluster holds.
    max_concurrent: int | None = None
    # Times that a trial may fail (a dead node, say) before it is given up.
    max_failures: int = 3
    paths: Paths = field(default_factory=Paths)
    cluster: Cluster = field(default_factory=Cluster)
    data: Data = field(default_factory=Data)
    # The miner whose settings are searched.
    profile: MinerProfile = field(default_factory=_profile)
    miners: Lab = field(default_factory=Lab)
    mechanism: Mechanism = field(default_factory=Mechanism)
    search: Search = field(default_factory=Search)
    scheduler: Scheduler = field(default_factory=Scheduler)


def check(cfg: SweepConfig) -> None:
    """Refuse impossible numbers. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    checks = Checks(cfg)
    need, positive = checks.need, checks.positive
    positive(
        "rounds",
        "max_concurrent",
        "search.num_trials",
        "scheduler.grace",
        "cluster.start_timeout_s",
        "cluster.num_cpus",
        "data.max_documents",
    )
    positive("miners.num_hosts", "miners.cpus_per_host", "miners.heldout_rows", "miners.round_timeout_s")
    positive("profile.hidden", "profile.layers", "profile.heads", "profile.lr", "profile.steps", "profile.batch_size")
    need(
        cfg.name is None or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", cfg.name) is not None,
        "name",
        "is a folder name: letters, digits, '.', '_' and '-', starting with a letter or digit",
    )
    need(cfg.seed >= 0, "seed", "must be 0 or greater")
    need(cfg.max_failures >= 0, "max_failures", "must be 0 or greater")
    checks.one_of("resume", ("never", "auto", "must"))
    need(
        cfg.resume == "never" or cfg.name is not None,
        "resume",
        "needs the name of the sweep to go on from: add name=...",
    )
    checks.one_of("rank_by", RANKINGS)
    checks.one_of("search.method", METHODS)
    checks.one_of("scheduler.kind", SCHEDULERS)
    need(cfg.scheduler.reduction > 1, "scheduler.reduction", "must be greater than 1")
    need(cfg.scheduler.grace <= cfg.rounds, "scheduler.grace", f"must be at most rounds ({cfg.rounds})")
    need(
        not (cfg.scheduler.kind == "pbt" and cfg.search.method == "optuna"),
        "search.method",
        "pbt changes settings by itself; take random or grid with it",
    )
    need(0.0 < cfg.data.heldout_share < 1.0, "data.heldout_share", "must lie between 0 and 1")
    checks.one_of("data.tokenizer", ("bpe", "bytes"))
    need(
        cfg.data.tokenizer == "bytes" or 257 <= cfg.data.vocab_size <= 65536,
        "data.vocab_size",
        "must lie between 257 and 65536",
    )
    need(8 <= cfg.miners.seq_len <= 65536, "miners.seq_len", "must lie between 8 and 65536")
    need(cfg.miners.gpus_per_host >= 0, "miners.gpus_per_host", "must be 0 or greater")
    check_mechanism(cfg.mechanism, checks)
    context = cfg.mechanism.query.context
    need(
        context <= cfg.miners.seq_len,
        "mechanism.query.context",
        f"must be at most miners.seq_len ({cfg.miners.seq_len})",
    )
    need(cfg.profile.behaviour == "honest", "profile.behaviour", "must be honest: a sweep compares models that train")
    for mistake in training_mistakes(cfg.profile):
        checks.add(f"profile.{mistake}")
    if cfg.profile.heads > 0 and cfg.profile.hidden % (2 * cfg.profile.heads):
        checks.add(
            f"profile.hidden={cfg.profile.hidden}: must be a multiple of 2 * profile.heads ({2 * cfg.profile.heads})"
        )
    checks.raise_all()
