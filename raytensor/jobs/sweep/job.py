"""The `sweep` job: from a configuration to a ranked table and a file with the best settings.

In: the command line. Out: an exit status and a folder:

    config.yaml, events.jsonl   the settings, what happened
    state.json                  settings that must stay equal when the sweep is resumed
    trials/                     results and newest checkpoints of every trial (store.py)
    decisions.jsonl             ASHA's decisions, in order
    trials.csv, summary.json    the ranked trials
    experiment/best.yaml        the best settings, for `raytensor run`
    report.html                 the outcome for people
    text.npz                    the text that all trials read
    tune/                       written by Ray Tune
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import rich.console

from raytensor import config
from raytensor.config.sweep import SweepConfig
from raytensor.data import corpus
from raytensor.jobs.session import Session
from raytensor.jobs.sweep import space
from raytensor.jobs.sweep.space import Point, Space
from raytensor.mechanisms.base import load_class
from raytensor.telemetry import events

if TYPE_CHECKING:
    from raytensor.jobs.sweep.tuner import Demand

HELP = """usage: raytensor sweep [group=choice] [key=value] ...

Searches for good settings of a miner: trains trials with settings from a search space, stops weak ones early, ranks
them, and writes the best as a file that `raytensor run` takes. Small models are trained together, several in each
matrix product. It can be stopped at any time, by kill -9 as well: `resume=auto` trains only what is missing.

examples:
  raytensor sweep                                   24 small models, about five minutes on two cores
  raytensor sweep search=lr profile.hidden=128      the learning rates of a grid, for a wider model
  raytensor sweep search=own 'search.space={profile.lr: {loguniform: [1e-3, 1e-2]}, profile.layers: {int: [1, 4]}}'
  raytensor sweep name=s1 rank_by=incentive         ranked by what the trials would earn as miners of one subnet
  raytensor sweep name=s1 resume=auto               train only what is missing
  raytensor sweep search=pbt scheduler.kind=pbt     weak trials continue from strong ones, with changed settings
  raytensor sweep search.method=optuna              points chosen by the results so far (needs raytensor[sweep])
  raytensor sweep dry_run=true                      the trials and the resources, and stop

A distribution is {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]}, {choice: [...]} or
{grid: [...]}. Every setting of profile. can vary, and miners.seq_len.
A trial is defined by its overrides: tried alone in the same sweep, they give the same numbers, bit for bit.
"""
# Settings that change how a sweep is carried out but not its results.
MAY_CHANGE = ("name", "resume", "dry_run", "rank_by", "max_", "paths.", "cluster.")
MAY_CHANGE += ("miners.num_hosts", "miners.cpus", "miners.gpus", "miners.round_timeout_s")


def sweep_main(argv: Sequence[str]) -> int:
    """`raytensor sweep ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("sweep", HELP, argv), end="")
        return 0
    cfg: SweepConfig = config.compose("sweep", list(argv))
    found = space.parse(cfg.search.space, config.settings(SweepConfig))
    points = space.points(found, cfg.search.method, cfg.search.num_trials, cfg.seed)
    # What trials share: without what names this start of the sweep.
    base = tuple(arg for arg in argv if not arg.startswith(("name=", "resume=", "dry_run=")))
    corpus.refuse_missing(cfg.data)
    from raytensor.jobs import preflight  # imports Ray, which `--help` does not need

    with preflight.patience("loading Ray Tune and checking the trials"):
        from raytensor.jobs.sweep import trials, tuner  # Ray Tune and torch

        load_class(cfg.mechanism.path)
        tuner.quiet()
        tuner.check_scheduler(cfg, found)
        if cfg.search.method == "optuna":
            tuner.optuna_search(cfg, 1)
        probes = tuner.samples(found, points)
        asked = tuner.demand(cfg, base, probes, {})  # refuses trials that can't be trained
    if not cfg.dry_run:
        return play(cfg, lambda session: trials.train(session, base, found, points))
    lines = preflight.resources(cfg.cluster, lambda on: tuner.demand(cfg, base, probes, on).needs)
    print(_dry_run(cfg, found, points, asked, lines), end="")
    return 0


def play(cfg: SweepConfig, train: Callable[[Session[SweepView]], list[str]]) -> int:
    """Run a sweep to its end. Returns 0, or 130 when it was stopped.

    train  trains and ranks the trials, and returns the last lines for the terminal.
    """
    last_lines: list[str] = []

    def sum_up(session: Session[SweepView], reason: str) -> None:
        name = session.folder.name
        again = f"stopped; go on with: raytensor sweep name={name} resume=auto (and the settings you gave)"
        print("\n".join(last_lines) if reason == "finished" else again, flush=True)

    session = Session("sweep", cfg, SweepView, resume=cfg.resume, may_change=MAY_CHANGE, rounds=cfg.rounds)
    return session.run(lambda one: last_lines.extend(train(one)), sum_up)


class SweepView:
    """Lines on the terminal: phases, results of trials, warnings."""

    def __init__(self, session: Session[SweepView]) -> None:
        self._path = session.folder.path
        self._out = rich.console.Console(highlight=False)

    def __enter__(self) -> SweepView:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def show(self, event: events.Event) -> None:
        """Print the line of an event; an event without a line is not shown."""
        match event:
            case events.Started():
                line = f"sweep {event.name}: {self._path}"
            case events.Phase():
                line = event.text
            case events.Warned():
                line = f"warning: {event.text}" + (f" ({event.fix})" if event.fix else "")
            case _:
                return
        self._out.print(line, markup=False, soft_wrap=True)


def _dry_run(cfg: SweepConfig, found: Space, points: list[Point], asked: Demand, resources: list[str]) -> str:
    count = len(points) or cfg.search.num_trials
    lines = [f"{key}: {d.kind} {list(d.values)}" for key, d in found.items()]
    rounds = f"{cfg.rounds} rounds of {cfg.profile.steps} steps at most"
    lines += ["", f"{count} trials ({cfg.search.method}), {rounds}, scheduler {cfg.scheduler.kind}:"]
    tried = [f"  trial {number}: {' '.join(space.overrides(point))}" for number, point in enumerate(points, start=1)]
    lines += [*(tried or ["  chosen by optuna from the results so far"]), "", *resources]
    for proxy, *ranks in asked.trials:
        line = f"  a trial      {proxy['CPU']:g} CPU"
        if ranks:
            line += f" + {len(ranks)} x ({', '.join(f'{amount:g} {key}' for key, amount in ranks[0].items())})"
        lines.append(line + ("" if ranks else ", trained by the hosts"))
    return "\n".join(lines) + "\n"
