"""Runs a sweep with Ray Tune: hosts, search, scheduler, trials.

In: a `SweepPlan`, on a connected Ray. Out: a `TrialOutcome` for each trial.
Waits for: the hosts, at most `cluster.start_timeout_s`; then for Tune.

A resumed sweep starts Tune anew with the same points: results on file are returned at once, ASHA repeats its recorded
decisions, and only what is missing is trained. (`Tuner.restore` would restore the trials of Tune's last snapshot, which
is seconds or minutes old, and a scheduler without its decisions.)
"""

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
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from raytensor.cluster import RESOURCES, wait_ready
from raytensor.config.sweep import SweepConfig
from raytensor.errors import ConfigError, cause_of
from raytensor.jobs.sweep.asha import RecordedASHA
from raytensor.jobs.sweep.host import CALLERS, TrialHost
from raytensor.jobs.sweep.lines import METRIC, ResultLines, Silent
from raytensor.jobs.sweep.outcome import TrialOutcome, outcome_of
from raytensor.jobs.sweep.pbt import SeededPBT
from raytensor.jobs.sweep.space import Point, Space, compose, corners, overrides
from raytensor.jobs.sweep.store import Store, read_lineage
from raytensor.jobs.sweep.trainable import Trial, TrialPlan, bundles, hosted
from raytensor.miners.model import refuse_models
from raytensor.training import devices
from raytensor.types import Need

TRIALS_PER_HOST = 4  # at a time, unless max_concurrent says otherwise: a trial's process takes seconds to start
# Settings that may change while a model trains.
MUTABLE = ("profile.lr", "profile.steps", "profile.batch_size")
HOST_SETTINGS = "miners.num_hosts, miners.cpus_per_host or miners.gpus_per_host"
RANK_SETTINGS = "profile.ranks, profile.cpus_per_rank or profile.gpus_per_rank, also in search.space"


@dataclass(frozen=True)
class Demand:
    """What a sweep asks of a cluster.

    hosts   the host actors; their count is 0 when no trial is trained by hosts.
    trials  bundles of each kind of trial, the largest last: its own process, then its ranks.
    """

    hosts: Need
    trials: tuple[tuple[dict[str, float], ...], ...]

    @property
    def needs(self) -> list[Need]:
        """The hosts beside one trial of the largest kind: the least that a sweep can run on."""
        proxy, *ranks = self.trials[-1]
        found = [self.hosts, Need("a trial", 1, proxy["CPU"])]
        if ranks:
            rank = ranks[0]
            found.append(Need("its ranks", len(ranks), rank["CPU"], rank.get("GPU", 0.0), RANK_SETTINGS))
        return found


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep runs.

    base    overrides of the sweep's command line, shared by all trials.
    space   what trials vary; points: the trials, empty where the search chooses them.
    text    file of the `Text`, on storage that all nodes see; folder: of the sweep.
    demand  what it asks of the cluster.
    """

    cfg: SweepConfig
    base: tuple[str, ...]
    space: Space
    points: Sequence[Point]
    text: Path
    folder: Path
    demand: Demand

    @property
    def num_trials(self) -> int:
        return len(self.points) or self.cfg.search.num_trials

    @property
    def keep_all(self) -> bool:
        """Whether all checkpoints are kept: population based training may continue from any of them."""
        return self.cfg.scheduler.kind == "pbt"

    @property
    def store(self) -> Store:
        """Results and checkpoints of the trials."""
        return Store(self.folder / "trials", keep_all=self.keep_all)


def samples(space: Space, points: Sequence[Point]) -> list[Point]:
    """Points that represent everything that may be tried."""
    return list(points) or corners(space)


def demand(cfg: SweepConfig, base: Sequence[str], probes: Sequence[Point], on: Mapping[str, float]) -> Demand:
    """What the sweep asks of a cluster with the resources `on`, and in `cfg.data` the tokenizer of the models.

    Raises `ConfigError` for a point that can't be trained.
    """
    kinds: dict[tuple[Any, ...], tuple[dict[str, float], ...]] = {}
    any_hosted, profiles = False, []
    for point in probes:
        try:
            trial = compose((*base, *overrides(point)))
        except ConfigError as error:
            what, why = " ".join(overrides(point)), str(error).replace("\n", "\n  ")
            fix = "change its distribution in search.space"
            raise ConfigError(f"the trial {what} can't be trained:\n  {why}\n  fix: {fix}") from error
        any_hosted |= hosted(trial)
        profiles.append(trial.profile)
        asked = tuple(bundles(trial))
        kinds[tuple(tuple(sorted(bundle.items())) for bundle in asked)] = asked
    refuse_models(profiles, cfg.data, cfg.paths.cache, cfg.miners.seq_len, where="profile.model")
    trials = sorted(kinds.values(), key=lambda asked: [sum(b.get(key, 0.0) for b in asked) for key in ("GPU", "CPU")])
    host_cpus, host_gpus = cfg.miners.cpus_per_host, cfg.miners.gpus_per_host
    fit = min(on.get("CPU", 0.0) / (host_cpus + 0.2), on.get("GPU", 0.0) / host_gpus if host_gpus else math.inf)
    num_hosts = (cfg.miners.num_hosts or max(1, int(fit))) if any_hosted else 0
    return Demand(Need("hosts", num_hosts, host_cpus, host_gpus, HOST_SETTINGS), tuple(trials))


def concurrency(cfg: SweepConfig, found: Demand, num_trials: int, resources: Mapping[str, float]) -> int:
    """Trials at a time: as set, else what fits beside the hosts."""
    if cfg.max_concurrent:
        return min(cfg.max_concurrent, num_trials)
    smallest, hosts = found.trials[0], found.hosts
    if len(smallest) == 1 and len(found.trials) == 1:
        return max(1, min(num_trials, TRIALS_PER_HOST * hosts.count))
    fitting = []
    for key in RESOURCES:
        asked = sum(bundle.get(key, 0.0) for bundle in smallest)
        free = resources.get(key, 0.0) - hosts.count * hosts.of(key)
        fitting.append(free / asked if asked else math.inf)
    return max(1, min(num_trials, int(min(fitting))))


def run_trials(plan: SweepPlan, hosts: Sequence[Any], say: Callable[[str], None]) -> list[TrialOutcome]:
    """Run every trial to its end. `say` gets a line for each result."""
    cfg, store = plan.cfg, plan.store
    at_once = concurrency(cfg, plan.demand, plan.num_trials, ray.cluster_resources())
    say(f"{plan.num_trials} trials, {at_once} at a time, {plan.demand.hosts.count} hosts")
    limit_s = cfg.miners.round_timeout_s
    trial_plan = TrialPlan(plan.base, plan.text, tuple(hosts), store.folder, cfg.rounds, limit_s, plan.keep_all)

    def resources(point: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory(bundles(compose((*plan.base, *overrides(point)))))

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, plan=trial_plan), resources),
        param_space={key: distribution.tune() for key, distribution in plan.space.items()},
        tune_config=tune.TuneConfig(
            num_samples=plan.num_trials,
            reuse_actors=True,
            max_concurrent_trials=at_once if plan.points else None,
            search_alg=_search(cfg, plan.points, at_once),
            scheduler=_scheduler(cfg, plan.space, plan.folder),
        ),
        run_config=tune.RunConfig(
            name=_next(plan.folder / "tune"),
            storage_path=str(plan.folder / "tune"),
            verbose=0,
            callbacks=[ResultLines(cfg.rounds, say)],
            failure_config=tune.FailureConfig(max_failures=cfg.max_failures),
            progress_reporter=Silent(),
        ),
    )
    random.seed(cfg.seed)  # Tune's schedulers draw from the global generators
    np.random.seed(cfg.seed % 2**32)
    results = tuner.fit()
    return [_outcome(at + 1, results[at], store, cfg.rounds) for at in range(len(results))]


@contextlib.contextmanager
def start_hosts(plan: SweepPlan, count: int, say: Callable[[str], None]) -> Iterator[list[Any]]:
    """`count` host actors, ready; they end with the block. Their state is on file: Ray may restart one on any node and
    repeat its calls. `say` gets a line while they wait for resources. Raises `ClusterError`."""
    cfg, need = plan.cfg, plan.demand.hosts
    retries = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": CALLERS}
    factory: Any = ray.remote(TrialHost)
    factory = factory.options(num_cpus=need.cpus, num_gpus=need.gpus, scheduling_strategy="SPREAD", **retries)
    device, threads = devices.name_for(need.gpus), cfg.cluster.torch_threads
    args, settings = (plan.base, plan.text, plan.store.folder, device), {"threads": threads, "keep_all": plan.keep_all}
    hosts = [factory.remote(*args, **settings) for _ in range(count)]
    try:
        ready = {f"host {number}": host.ready.remote() for number, host in enumerate(hosts)}
        wait_ready(ready, timeout_s=cfg.cluster.start_timeout_s, need=need, say=say)
        yield hosts
    finally:
        for host in hosts:
            ray.kill(host)


def _outcome(number: int, result: Any, store: Store, rounds: int) -> TrialOutcome:
    metrics = result.metrics or {}
    first = ((0, tuple(overrides(result.config or {}))),)
    lineage = read_lineage(metrics["lineage"]) if "lineage" in metrics else first
    known = store.results(lineage)
    newest = int(metrics.get("round", max(known, default=0)))
    error = cause_of(result.error) if result.error else ""
    return outcome_of(number, lineage, {n: r for n, r in known.items() if n <= newest}, rounds=rounds, error=error)


def _scheduler(cfg: SweepConfig, space: Space, folder: Path) -> TrialScheduler:
    settings = cfg.scheduler
    if settings.kind == "asha":
        asha = {"max_t": cfg.rounds, "grace_period": settings.grace, "reduction_factor": settings.reduction}
        return RecordedASHA(folder / "decisions.jsonl", metric=METRIC, **asha)
    if settings.kind == "none":
        return FIFOScheduler()
    mutations = {key: one.tune() if one.is_range else list(one.values) for key, one in space.items()}

    def bounded(point: dict[str, Any]) -> dict[str, Any]:
        for key, distribution in space.items():
            if distribution.is_range:  # a factor may have left the range
                point[key] = min(max(point[key], distribution.values[0]), distribution.values[1])
        return point

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


def check_scheduler(cfg: SweepConfig, space: Space) -> None:
    """Refuse population based training of settings that can't change while a model trains. Raises `ConfigError`."""
    fixed = [key for key in space if key not in MUTABLE]
    if cfg.scheduler.kind == "pbt" and fixed:
        fix = f"with scheduler.kind=pbt vary {', '.join(MUTABLE)}"
        raise ConfigError(f"search.space: {fixed[0]} can't change while a model trains; {fix}")


def _search(cfg: SweepConfig, points: Sequence[Point], at_once: int) -> Searcher | BasicVariantGenerator:
    if points:
        return BasicVariantGenerator(points_to_evaluate=[dict(point) for point in points], max_concurrent=at_once)
    return optuna_search(cfg, at_once)


def optuna_search(cfg: SweepConfig, at_once: int) -> Any:
    """Tune's searcher that asks optuna for points. Raises `ConfigError` when optuna is not installed."""
    try:
        import optuna  # an optional dependency
    except ImportError as error:
        fix = "pip install 'raytensor[sweep]', or take search.method=random"
        raise ConfigError(f"search.method=optuna: optuna is not installed\n  fix: {fix}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searcher = OptunaSearch(metric=METRIC, mode="min", sampler=optuna.samplers.TPESampler(seed=cfg.seed))
    return ConcurrencyLimiter(searcher, max_concurrent=at_once)


def _next(folder: Path) -> str:
    """A new name for each start of the sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    return f"start-{1 + sum(path.is_dir() for path in folder.iterdir())}"


def quiet() -> None:
    """Keep Tune off the terminal, from loading loggers that are not used, and from replacing the handler of Ctrl-C."""
    for name in ("TUNE_DISABLE_SIGINT_HANDLER", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
