"""The `sweep` job: from a configuration to a ranked table and a file with the best settings.

In: the command line. Out: an exit status and a folder:

    config.yaml, state.json     the sweep; what must be equal when it goes on
    trials/                     results and newest checkpoints of every trial (store.py)
    decisions.jsonl             what ASHA decided, in order
    trials.csv, summary.json    the outcome, ranked
    experiment/best.yaml        the best settings, for `raytensor run`
    report.html                 the outcome for people
    text.npz                    the text that all trials read
    tune/                       Ray Tune's own
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raytensor import config
from raytensor.config.sweep import SweepConfig
from raytensor.errors import RunError
from raytensor.jobs.sweep import outcome, space
from raytensor.telemetry.runfolder import RunFolder, new_name

if TYPE_CHECKING:
    from raytensor.data.text import Text
    from raytensor.jobs.sweep.outcome import TrialOutcome
    from raytensor.jobs.sweep.tuner import Demand

HELP = """usage: raytensor sweep [group=choice] [key=value] ...

Searches good settings for a miner: trains trials with settings from a search space, stops weak ones early, ranks them,
and writes the best as a file that `raytensor run` takes. Small models are computed together, several in each matrix
product. Stop it as you like, by kill -9 too: `resume=auto` trains only what is missing.

examples:
  raytensor sweep                                   24 small models, about five minutes on two cores
  raytensor sweep search=lr profile.hidden=128      the learning rates of a grid, for a wider model
  raytensor sweep search=own '+search.space={profile.lr: {loguniform: [1e-3, 1e-2]}, profile.layers: {int: [1, 4]}}'
  raytensor sweep name=s1 rank_by=incentive         ranked by what the trials would earn as miners of one subnet
  raytensor sweep name=s1 resume=auto               go on where kill -9 left it
  raytensor sweep search=pbt scheduler.kind=pbt     weak trials go on from strong ones, with changed settings
  raytensor sweep search.method=optuna              points chosen by what came out so far (needs raytensor[sweep])
  raytensor sweep dry_run=true                      the trials and the resources, and stop

A distribution is {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]}, {choice: [...]} or
{grid: [...]}. What can be varied: every setting of profile., and miners.seq_len.
A trial is its list of overrides: the same sweep with that list tried alone gives the same numbers, bit for bit.
"""
# Settings that change how a sweep is carried out but not what comes out.
MAY_CHANGE = (
    "name",
    "resume",
    "dry_run",
    "rank_by",
    "max_",
    "paths.",
    "cluster.",
    "miners.num_hosts",
    "miners.cpus",
    "miners.gpus",
    "miners.round_timeout_s",
)


def sweep_main(argv: Sequence[str]) -> int:
    """`raytensor sweep ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("sweep", HELP, argv), end="")
        return 0
    cfg = config.compose("sweep", list(argv))
    found = space.parse(cfg.search.space, space.settings_of(SweepConfig))
    points = space.points(found, cfg.search.method, cfg.search.num_trials, cfg.seed)
    base = _base(argv)
    from raytensor.data import corpus
    from raytensor.jobs.sweep import tuner

    corpus.refuse_missing(cfg.data)

    tuner.quiet()
    tuner.check_scheduler(cfg, found)
    if cfg.search.method == "optuna":
        tuner.optuna_search(cfg, 1)
    cpus = cfg.cluster.num_cpus or max(2, os.cpu_count() or 1)
    asked = tuner.demand(cfg, base, tuner.samples(found, points), cpus)
    if cfg.dry_run:
        print(_dry_run(cfg, found, points, asked), end="")
        return 0
    return play(cfg, base, found, points)


def play(cfg: SweepConfig, base: Sequence[str], found: dict[str, space.Distribution], points: list[space.Point]) -> int:
    """Run a sweep to its end. Returns 0, or 130 when it was stopped."""
    from raytensor import cluster
    from raytensor.data import text as texts
    from raytensor.data.text import prepare
    from raytensor.jobs.sweep import tuner

    started = time.monotonic()
    name = cfg.name or new_name(Path(cfg.paths.runs)).replace("run-", "sweep-", 1)
    with RunFolder(Path(cfg.paths.runs) / name, cfg.resume) as folder, _stoppable():
        _same_sweep(folder, cfg)
        folder.write_config(cfg)
        say(f"sweep {name}: {folder.path}")
        say("starting Ray (takes about 7 s)")
        try:
            cluster.connect(cfg.cluster)
            import ray

            there = ray.cluster_resources()
            asked = tuner.demand(cfg, base, tuner.samples(found, points), there.get("CPU", 0.0))
            tuner.check_cluster(asked, there)
            text, place = prepare(cfg.data, Path(cfg.paths.cache), say), folder.path / "text.npz"
            texts.save(place, text)
            folder.save_state({"config": _settled(cfg), "trials": [space.overrides(point) for point in points]})
            with tuner.start_hosts(cfg, base, place, folder.path / "trials", asked) as hosts:
                trials = tuner.run_trials(cfg, base, found, points, place, folder.path, asked, hosts, say)
                if cfg.rank_by == "incentive" and hosts:
                    _earn(cfg, text, hosts[0], trials)
            if cfg.rank_by == "incentive" and not hosts:  # trials had processes of their own
                one = dataclasses.replace(asked, hosts=1)
                with tuner.start_hosts(cfg, base, place, folder.path / "trials", one) as hosts:
                    _earn(cfg, text, hosts[0], trials)
        except KeyboardInterrupt:
            say(f"stopped; go on with: raytensor sweep name={name} resume=auto (and the settings you gave)")
            return 130
        finally:
            cluster.disconnect()
        return _finish(cfg, base, folder, trials, list(found), time.monotonic() - started)


def say(line: str) -> None:
    print(line, flush=True)


def _finish(
    cfg: SweepConfig, base: Sequence[str], folder: RunFolder, trials: list[TrialOutcome], keys: list[str], wall_s: float
) -> int:
    from raytensor.jobs.sweep.report import write_report

    ranked = outcome.ranked(trials, cfg.rank_by)
    rows = outcome.table(ranked, keys)
    best = ranked[0]
    if best.loss is None:
        raise RunError(
            f"no trial gave a result; the first one failed with: {best.error or 'a loss that is not finite'}\n  Ray's logs say more: /tmp/ray/session_latest/logs"
        )
    command = outcome.write_best(folder.path, config.compose("sweep", [*base, *best.overrides]), best)
    outcome.write_csv(folder.path / "trials.csv", rows)
    summary = outcome.summary(ranked, name=folder.name, rank_by=cfg.rank_by, command=command, wall_s=wall_s)
    folder.write_summary(summary)
    write_report(folder.path, cfg, ranked, keys, command, wall_s)
    say(f"\n{outcome.as_text(rows)}\n")
    say(f"best:   trial {best.number}: {' '.join(best.overrides)}")
    say(f"run it: {command}")
    say(f"table, report: {folder.path / 'trials.csv'}, {folder.report}")
    return 0


def _earn(cfg: SweepConfig, text: Text, host: Any, trials: list[TrialOutcome]) -> None:
    """Every trial's model, as it stands, is a miner of one subnet; its share goes into the trial's outcome."""
    import ray

    from raytensor.jobs.sweep import incentive

    say("ranking by incentive: the trials answer validators side by side")
    alive = {
        trial.number: trial
        for trial in trials
        if trial.loss is not None and trial.status not in (outcome.FAILED, outcome.DIVERGED)
    }

    def ask(number: int, tasks: Sequence[Any]) -> Any:
        trial = alive[number]
        return ray.get(host.answer.remote(trial.lineage, trial.rounds, list(tasks)), timeout=cfg.miners.round_timeout_s)

    for number, share in incentive.incentives(cfg, text, sorted(alive), ask).items():
        alive[number].incentive = share


def _base(argv: Sequence[str]) -> list[str]:
    """The sweep's own overrides, for trials: without what names this start of it."""
    return [arg for arg in argv if not arg.startswith(("name=", "resume=", "dry_run="))]


def _settled(cfg: SweepConfig) -> dict[str, Any]:
    flat = _flatten(dataclasses.asdict(cfg))
    return {key: value for key, value in flat.items() if not key.startswith(MAY_CHANGE)}


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return flat


def _same_sweep(folder: RunFolder, cfg: SweepConfig) -> None:
    """Raises `RunError` when the folder's sweep was begun with other settings."""
    state = folder.load_state() if folder.resuming else None
    if state is None:
        return
    before, now = state["config"], _settled(cfg)
    differs = [
        f"{key}={now.get(key)!r} (was {before.get(key)!r})"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if differs:
        raise RunError(
            f"{folder.path} was begun with other settings: {', '.join(differs)}\n"
            f"  fix: give the same settings again (config.yaml there has them), or take another name"
        )


def _dry_run(cfg: SweepConfig, found: dict[str, space.Distribution], points: list[space.Point], asked: Demand) -> str:
    lines = [f"{key}: {d.kind} {list(d.values)}" for key, d in found.items()]
    count = len(points) or cfg.search.num_trials
    lines += [
        "",
        f"{count} trials ({cfg.search.method}), {cfg.rounds} rounds of {cfg.profile.steps} steps at most, scheduler {cfg.scheduler.kind}:",
    ]
    lines += [f"  trial {n}: {' '.join(space.overrides(point))}" for n, point in enumerate(points, start=1)] or [
        "  chosen by optuna as results come"
    ]
    lines += [
        "",
        "resources:",
        f"  hosts        {asked.hosts} x {asked.host_cpus:g} CPU"
        + (f" + {asked.host_gpus:g} GPU" if asked.host_gpus else ""),
    ]
    for bundles in asked.trials:
        ranks = (
            ""
            if len(bundles) == 1
            else f" + {len(bundles) - 1} x ({', '.join(f'{amount:g} {key}' for key, amount in bundles[1].items())})"
        )
        lines.append(
            f"  a trial      {bundles[0]['CPU']:g} CPU{ranks}" + (", trained by the hosts" if len(bundles) == 1 else "")
        )
    return "\n".join(lines) + "\n"


class _stoppable:
    """Ctrl-C and SIGTERM end the sweep in order, once."""

    def __enter__(self) -> None:
        stopping = threading.Event()

        def stop(*_: object) -> None:
            if not stopping.is_set():
                stopping.set()
                raise KeyboardInterrupt

        self._before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
