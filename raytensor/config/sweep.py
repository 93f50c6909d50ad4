"""The settings of the `sweep` job.

The distributions of a trial (`search.space`) are read and checked in `raytensor.jobs.sweep.space`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import Section, setting
from raytensor.config.groups import Job, MinerProfile
from raytensor.config.mechanisms import Mechanism
from raytensor.config.run import seq_len_conflicts


@dataclass
class Lab(Section):
    """What all miners of a sweep share, as in the `miners` section of a run."""

    # Tokens of a training sequence.
    seq_len: int = setting(32, least=8, most=65536)
    # Held-out texts on which the held-out loss of each trial is measured, the same for all.
    heldout_rows: int = 512
    # Host actors that train the small models, several in each matrix product; null uses as many as fit.
    num_hosts: int | None = None
    # CPUs that each host actor reserves.
    cpus_per_host: float = 0.8
    # GPUs that each host actor reserves.
    gpus_per_host: float = setting(0.0, least=0)
    # Seconds that one round of a trial may take.
    round_timeout_s: float = 600.0


@dataclass
class Search(Section):
    # What trials vary: dotted settings of this job -> {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low,
    # high]}, {choice: [...]} or {grid: [...]}.
    space: dict[str, Any] = setting(make=dict, dotted=True)
    # random | grid (every combination; all keys are choices or grids) | optuna (needs raytensor[sweep])
    method: str = setting("random", choices=("random", "grid", "optuna"))
    # Number of trials; a grid has one per combination.
    num_trials: int = 24


@dataclass
class Scheduler(Section):
    # asha stops weak trials early; pbt lets weak trials continue from strong ones with changed settings; none trains
    # all.
    kind: str = setting("asha", choices=("asha", "pbt", "none"))
    # Rounds before the first decision (asha), or between two changes (pbt).
    grace: int = 1
    # asha: one trial in this many continues at each decision.
    reduction: float = setting(3.0, above=1)


@dataclass
class SweepConfig(Job):
    # Largest number of rounds that a trial trains, of `profile.steps` optimizer steps each.
    rounds: int = 9
    # How trials are ranked: heldout_loss, or the incentive that they earn side by side as miners of one subnet.
    rank_by: str = setting("heldout_loss", choices=("heldout_loss", "incentive"))
    # Trials at a time; null uses what the cluster holds.
    max_concurrent: int | None = None
    # Times that a trial may fail (a dead node, for example) before it is given up.
    max_failures: int = setting(3, least=0)
    # The miner whose settings are searched.
    profile: MinerProfile = field(default_factory=lambda: MinerProfile(hidden=64, layers=2, heads=2, steps=20))
    # What all trials share.
    miners: Lab = field(default_factory=Lab)
    # How the incentive of trials is computed (rank_by=incentive).
    mechanism: Mechanism = field(default_factory=Mechanism)
    # Which settings are tried.
    search: Search = field(default_factory=Search)
    # Which trials are trained to the end.
    scheduler: Scheduler = field(default_factory=Scheduler)

    def models(self) -> list[str | None]:
        return [self.profile.model]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from super().conflicts()
        if self.scheduler.grace > self.rounds:
            yield "scheduler.grace", f"must be at most rounds ({self.rounds})"
        if self.scheduler.kind == "pbt" and self.search.method == "optuna":
            yield "search.method", "pbt changes settings by itself; use random or grid with it"
        yield from seq_len_conflicts(self.mechanism, self.miners.seq_len)
        if self.profile.behaviour != "honest":
            yield "profile.behaviour", "must be honest: a sweep compares models that train"
