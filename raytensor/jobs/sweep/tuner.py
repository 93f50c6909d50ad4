"""The sweep as Ray Tune runs it: hosts, the search, the scheduler, the trials.

In: a checked sweep, its points and text, on a connected Ray. Out: what became of every trial.
Waits for: the hosts, at most `cluster.start_timeout_s`; then for Tune.

A sweep that goes on begins again with the same points: results that are on file come back at once, ASHA stands by its
decisions, and only what is missing is trained. (Tune's own `Tuner.restore` would bring back the trials as its last
snapshot had them, seconds or minutes old, and a scheduler that has forgotten all its decisions.)
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from raytensor.cluster import wait_ready
from raytensor.config.sweep import SweepConfig
from raytensor.errors import ClusterError, ConfigError
from raytensor.jobs.sweep.asha import RecordedASHA
from raytensor.jobs.sweep.host import CALLERS, TrialHost
from raytensor.jobs.sweep.outcome import TrialOutcome, outcome_of
from raytensor.jobs.sweep.pbt import SeededPBT
from raytensor.jobs.sweep.space import Distribution, Point, compose, corners, overrides
from raytensor.jobs.sweep.store import Store, read_lineage
from raytensor.jobs.sweep.trainable import Plan, Trial, bundles, hosted, trial_number
from raytensor.miners.model import refuse_models
from raytensor.training import devices

METRIC = "heldout_loss"
TRIALS_PER_HOST = 4  # at a time, unless max_concurrent says otherwise: a trial's process takes seconds to start
# What a model can change while it trains.
MUTABLE = ("profile.lr", "profile.steps", "profile.batch_size")


@dataclass(frozen=True)
class Demand:
    """What a sweep asks of a cluster.

    hosts         host actors of `host_cpus` and `host_gpus` each; 0 when no trial is of the kind that hosts train.
    trials        bundles of every kind of trial, the largest last.
    """

    hosts: int
    host_cpus: float
    host_gpus: float
    trials: tuple[tuple[dict[str, float], ...], ...]

    @property
    def largest(self) -> dict[str, float]:
        return {key: sum(bundle.get(key, 0.0) for bundle in self.trials[-1]) for key in ("CPU", "GPU")}


def samples(space: Mapping[str, Distribution], points: Sequence[Point]) -> list[Point]:
    """Points that stand for all that may be tried."""
    return list(points) or corners(space)


def demand(cfg: SweepConfig, base: Sequence[str], probes: Sequence[Point], cpus: float) -> Demand:
    """What the sweep asks of a cluster of `cpus` CPUs. Raises `ConfigError` for a point that can't be trained."""
    kinds: dict[tuple[Any, ...], tuple[dict[str, float], ...]] = {}
    any_hosted, profiles = False, []
    for point in probes:
        try:
            trial = compose((*base, *overrides(point)))
        except ConfigError as error:
            raise ConfigError(
                f"the trial {' '.join(overrides(point))} can't be trained:\n  "
                + str(error).replace("\n", "\n  ")
                + "\n  fix: change its distribution in search.space"
            ) from error
        any_hosted |= hosted(trial)
        profiles.append(trial.profile)
        asked = tuple(bundles(trial))
        kinds[tuple(tuple(sorted(bundle.items())) for bundle in asked)] = asked
    refuse_models(profiles, cfg.data, cfg.miners.seq_len)
    trials = sorted(kinds.values(), key=lambda asked: [sum(b.get(key, 0.0) for b in asked) for key in ("GPU", "CPU")])
    hosts = cfg.miners.num_hosts or max(1, int(cpus / (cfg.miners.cpus_per_host + 0.2)))
    return Demand(hosts if any_hosted else 0, cfg.miners.cpus_per_host, cfg.miners.gpus_per_host, tuple(trials))


def check_cluster(found: Demand, there: Mapping[str, float]) -> None:
    """Refuse what the cluster could never hold. Raises `ClusterError` that says asked, there is, and the fix."""
    for key in ("GPU", "CPU"):
        held = found.hosts * (found.host_gpus if key == "GPU" else found.host_cpus)
        has, asked = there.get(key, 0.0), found.largest[key]
        if asked + held > has + 1e-9:
            beside = f" beside the {found.hosts} hosts' {held:g}" if held else ""
            raise ClusterError(
                f"the largest trial asks for {asked:g} {key}s{beside}, and the cluster has {has:g}\n"
                f"  fix: fewer profile.ranks or profile.{'gpus' if key == 'GPU' else 'cpus'}_per_rank in search.space, fewer miners.num_hosts, or a larger cluster"
            )


def concurrency(cfg: SweepConfig, found: Demand, num_trials: int, there: Mapping[str, float]) -> int:
    """Trials at a time: as set, else what fits beside the hosts."""
    if cfg.max_concurrent:
        return min(cfg.max_concurrent, num_trials)
    smallest = found.trials[0]
    if len(smallest) == 1 and len(found.trials) == 1:
        return max(1, min(num_trials, TRIALS_PER_HOST * found.hosts))
    rooms = []
    for key in ("CPU", "GPU"):
        asked = sum(bundle.get(key, 0.0) for bundle in smallest)
        free = there.get(key, 0.0) - found.hosts * (found.host_gpus if key == "GPU" else found.host_cpus)
        rooms.append(free / asked if asked else math.inf)
    return max(1, min(num_trials, int(min(rooms))))


def run_trials(
    cfg: SweepConfig,
    base: Sequence[str],
    space: Mapping[str, Distribution],
    points: Sequence[Point],
    text: Path,
    folder: Path,
    found: Demand,
    hosts: Sequence[Any],
    say: Callable[[str], None],
) -> list[TrialOutcome]:
    """Every trial to its end. text: file of the `Text`, on storage that all nodes see. `say` gets a line for each result."""
    keep_all = cfg.scheduler.kind == "pbt"
    store = Store(folder / "trials", keep_all=keep_all)
    num_trials = len(points) or cfg.search.num_trials
    at_once = concurrency(cfg, found, num_trials, ray.cluster_resources())
    say(f"{num_trials} trials, {at_once} at a time, {found.hosts} hosts")
    plan = Plan(tuple(base), text, tuple(hosts), store.folder, cfg.rounds, cfg.miners.round_timeout_s, keep_all)

    def resources(point: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory(bundles(compose((*base, *overrides(point)))))

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, plan=plan), resources),
        param_space={key: distribution.tune() for key, distribution in space.items()},
        tune_config=tune.TuneConfig(
            num_samples=num_trials,
            reuse_actors=True,
            max_concurrent_trials=None if not points else at_once,
            search_alg=_search(cfg, points, at_once),
            scheduler=_scheduler(cfg, space, folder),
        ),
        run_config=tune.RunConfig(
            name=_next(folder / "tune"),
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[_Lines(cfg.rounds, say)],
            failure_config=tune.FailureConfig(max_failures=cfg.max_failures),
            progress_reporter=_Silent(),
        ),
    )
    random.seed(cfg.seed)  # Tune's schedulers draw from the global generators
    np.random.seed(cfg.seed % 2**32)
    results = tuner.fit()
    return [_outcome(number, result, store, cfg.rounds) for number, result in enumerate(results, start=1)]


@contextlib.contextmanager
def start_hosts(cfg: SweepConfig, base: Sequence[str], text: Path, folder: Path, found: Demand) -> Iterator[list[Any]]:
    """Host actors, ready; they end with the block. They hold nothing that is not on file: Ray may start one again anywhere,
    and repeat its calls. folder: of the trials."""
    keep_all = cfg.scheduler.kind == "pbt"
    factory = ray.remote(TrialHost).options(
        num_cpus=found.host_cpus,
        num_gpus=found.host_gpus,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=CALLERS,
        scheduling_strategy="SPREAD",
    )
    device = devices.name_for(found.host_gpus)
    hosts = [
        factory.remote(tuple(base), text, folder, device=device, threads=cfg.cluster.torch_threads, keep_all=keep_all)
        for _ in range(found.hosts)
    ]
    try:
        wait_ready(
            {f"host {n}": host.ready.remote() for n, host in enumerate(hosts)}, timeout_s=cfg.cluster.start_timeout_s
        )
        yield hosts
    finally:
        for host in hosts:
            ray.kill(host)


def _outcome(number: int, result: Any, store: Store, rounds: int) -> TrialOutcome:
    metrics = result.metrics or {}
    lineage = (
        read_lineage(metrics["lineage"]) if "lineage" in metrics else ((0, tuple(overrides(result.config or {}))),)
    )
    known = store.results(lineage)
    newest = int(metrics.get("round", max(known, default=0)))
    error = str(result.error).strip().splitlines()[-1] if result.error else ""
    return outcome_of(number, lineage, {n: r for n, r in known.items() if n <= newest}, rounds=rounds, error=error)


def _scheduler(cfg: SweepConfig, space: Mapping[str, Distribution], folder: Path) -> TrialScheduler:
    settings = cfg.scheduler
    if settings.kind == "asha":
        return RecordedASHA(
            folder / "decisions.jsonl",
            metric=METRIC,
            max_t=cfg.rounds,
            grace_period=settings.grace,
            reduction_factor=settings.reduction,
        )
    if settings.kind == "none":
        return FIFOScheduler()
    mutations = {
        key: distribution.tune() if distribution.is_range else list(distribution.values)
        for key, distribution in space.items()
    }

    def bounded(point: dict[str, Any]) -> dict[str, Any]:
        for key, distribution in space.items():
            if distribution.is_range:  # a factor may have left the range
                point[key] = min(max(point[key], distribution.values[0]), distribution.values[1])
        return point

    # In step: who goes on from whom must not depend on who was faster.
    return SeededPBT(
        cfg.seed,
        time_attr="round",
        metric=METRIC,
        mode="min",
        perturbation_interval=settings.grace,
        hyperparam_mutations=mutations,
        custom_explore_fn=bounded,
        log_config=False,
    )


def check_scheduler(cfg: SweepConfig, space: Mapping[str, Distribution]) -> None:
    """Raises `ConfigError` when population based training is to change what a trained model can't."""
    fixed = [key for key in space if key not in MUTABLE]
    if cfg.scheduler.kind == "pbt" and fixed:
        raise ConfigError(
            f"search.space: {fixed[0]} can't change while a model trains; with scheduler.kind=pbt vary {', '.join(MUTABLE)}"
        )


def _search(cfg: SweepConfig, points: Sequence[Point], at_once: int) -> Searcher | BasicVariantGenerator:
    if points:
        return BasicVariantGenerator(points_to_evaluate=[dict(point) for point in points], max_concurrent=at_once)
    return optuna_search(cfg, at_once)


def optuna_search(cfg: SweepConfig, at_once: int) -> Any:
    """Raises `ConfigError` when optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            "search.method=optuna: optuna is not installed\n  fix: pip install 'raytensor[sweep]', or take search.method=random"
        ) from error
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Tune hands it the space.
    searcher = OptunaSearch(metric=METRIC, mode="min", sampler=optuna.samplers.TPESampler(seed=cfg.seed))
    return ConcurrencyLimiter(searcher, max_concurrent=at_once)


def _next(folder: Path) -> str:
    """A name of its own for every time that the sweep is started."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"start-{1 + sum(path.is_dir() for path in folder.iterdir())}"


class _Silent(tune.ProgressReporter):
    """Tune's own progress is replaced by a line per result."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        pass


class _Lines(tune.Callback):
    def __init__(self, rounds: int, say: Callable[[str], None]) -> None:
        self._rounds = rounds
        self._say = say
        self._best: tuple[float, str] | None = None

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number, loss = trial_number(trial.trial_id), result[METRIC]
        if result["setback"]:
            self._say(f"warning: trial {number}: {result['setback']}")
        if self._best is None or loss < self._best[0]:
            self._best = (loss, f"trial {number}")
        self._say(
            f"trial {number:>3}  round {result['round']}/{self._rounds}  held-out {loss:.4f}  best {self._best[0]:.4f} ({self._best[1]})  {' '.join(overrides(trial.config))}"
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"trial {trial_number(trial.trial_id)} failed for good; tune/ has its error")


def quiet() -> None:
    """Tune writes to the terminal and loads loggers that nobody reads here."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
