"""Trains and ranks the trials of a sweep on Ray, and writes the outcome.

In: a session, a search space and its points. Out: the files of the sweep's folder, and the last lines for the terminal.
Waits for: Ray, the hosts and Ray Tune. Importing this module takes seconds (Ray Tune, torch, matplotlib).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from raytensor import cluster, config
from raytensor.config.sweep import SweepConfig
from raytensor.data import text as texts
from raytensor.data.text import Text
from raytensor.errors import RunError
from raytensor.jobs.session import Session
from raytensor.jobs.sweep import incentive, outcome, space, tuner
from raytensor.jobs.sweep.outcome import TrialOutcome
from raytensor.jobs.sweep.report import write_report
from raytensor.jobs.sweep.space import Point, Space
from raytensor.jobs.sweep.tuner import SweepPlan
from raytensor.telemetry.runfolder import RunFolder


def train(session: Session[Any], base: tuple[str, ...], found: Space, points: list[Point]) -> list[str]:
    """Train and rank the trials and write the outcome. Returns the last lines for the terminal."""
    cfg, folder, started = session.cfg, session.folder, time.monotonic()
    session.phase("starting Ray (takes about 7 s)")
    session.stack.callback(cluster.disconnect)
    cluster.connect(cfg.cluster)
    asked = tuner.demand(cfg, base, tuner.samples(found, points), ray.cluster_resources())
    cluster.check(asked.needs, cfg=cfg.cluster)
    session.phase("preparing the text")
    text = texts.prepare(cfg.data, Path(cfg.paths.cache), session.phase)
    texts.save(folder.path / "text.npz", text)
    session.save(trials=[space.overrides(point) for point in points])
    session.begin()
    plan = tuner.SweepPlan(cfg, base, found, points, folder.path / "text.npz", folder.path, asked)
    session.phase("starting the hosts")
    with tuner.start_hosts(plan, asked.hosts.count, session.phase) as hosts:
        trials = tuner.run_trials(plan, hosts, session.phase)
        if cfg.rank_by == "incentive" and hosts:
            _rank_by_incentive(session, text, hosts[0], trials)
    if cfg.rank_by == "incentive" and not hosts:  # the trials had ranks of their own
        with tuner.start_hosts(plan, 1, session.phase) as hosts:
            _rank_by_incentive(session, text, hosts[0], trials)
    return _write_outcome(folder, plan, trials, time.monotonic() - started)


def _write_outcome(folder: RunFolder, plan: SweepPlan, trials: list[TrialOutcome], wall_s: float) -> list[str]:
    """Rank the trials and write the table, the summary, the best settings and the report. Returns the last lines."""
    cfg, keys = plan.cfg, list(plan.space)
    ranked = outcome.ranked(trials, cfg.rank_by)
    rows, best = outcome.table(ranked, keys), ranked[0]
    if best.loss is None:
        why = best.error or "a loss that is not finite"
        fix = "change search.space or the profile; /tmp/ray/session_latest/logs has the workers' logs"
        raise RunError(f"no trial gave a result; the first one failed with: {why}\n  fix: {fix}")
    command = outcome.write_best(folder.path, config.compose("sweep", [*plan.base, *best.overrides]), best)
    outcome.write_csv(folder.path / "trials.csv", rows)
    summary = outcome.summary(ranked, name=folder.name, rank_by=cfg.rank_by, command=command, wall_s=wall_s)
    folder.write_summary(summary)
    write_report(folder.path, cfg, ranked, keys, command, wall_s)
    return [
        f"\n{outcome.as_text(rows)}\n",
        f"best:   trial {best.number}: {' '.join(best.overrides)}",
        f"run it: {command}",
        f"table, report: {folder.path / 'trials.csv'}, {folder.report}",
    ]


def _rank_by_incentive(session: Session[Any], text: Text, host: Any, trials: list[TrialOutcome]) -> None:
    """Compute the share of the incentive that each trial earns as a miner of one subnet, and set it on the trials."""
    cfg: SweepConfig = session.cfg
    session.phase("ranking by incentive: the trials answer validators side by side")
    unusable = (outcome.FAILED, outcome.DIVERGED)
    alive = {one.number: one for one in trials if one.loss is not None and one.status not in unusable}

    def ask(number: int, tasks: Sequence[Any]) -> Any:
        trial = alive[number]
        return ray.get(host.answer.remote(trial.lineage, trial.rounds, list(tasks)), timeout=cfg.miners.round_timeout_s)

    for number, share in incentive.incentives(cfg, text, sorted(alive), ask).items():
        alive[number].incentive = share
