"""The `run` job: a whole network from configuration to report.

In: the command line. Out: an exit status and a run folder.
Knows nothing of how a network is made (network.py) or what a round does (round.py).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from raytensor import __version__, config
from raytensor.errors import RayTensorError
from raytensor.jobs.run.network import Network, Show
from raytensor.jobs.run.plan import needs, refuse_unusable
from raytensor.telemetry import events
from raytensor.telemetry.console import Console
from raytensor.telemetry.event_log import EventLog, read_events
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder, new_name
from raytensor.telemetry.summary import build_summary, disk_use

HELP = """usage: raytensor run [group=choice] [key=value] ...

Runs a whole network: starts Ray (or joins the cluster that RAY_ADDRESS names) and the embedded chain, registers
miners and validators, plays rounds, and leaves a folder with the outcome. Ctrl-C stops it cleanly.

examples:
  raytensor run                                   eight honest miners, three validators, about two minutes
  raytensor run name=demo rounds=20 miners.num_miners=16 validators.num_validators=4 seed=1
  raytensor run name=demo rounds=40 resume=auto   go on with a run that ended or was stopped
  raytensor run experiment=cheats                 five honest miners beside five that cheat
  raytensor run dry_run=true                      show the resolved configuration and the resources, and stop
"""


def run_main(argv: Sequence[str]) -> int:
    """`raytensor run ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("run", HELP, argv), end="")
        return 0
    cfg = config.compose("run", list(argv))
    refuse_unusable(cfg)
    if cfg.dry_run:
        print(_dry_run(cfg), end="")
        return 0
    return play(cfg)


def play(cfg: config.RunConfig) -> int:
    """Run a network to its last round. Returns 0 when it finished, 130 when it was stopped."""
    name = cfg.name or new_name(Path(cfg.paths.runs))
    with RunFolder(Path(cfg.paths.runs) / name, cfg.resume) as folder:
        past = read_events(folder.events) if folder.events.exists() else []
        with EventLog(folder.events) as log, Console(folder.path, cfg.rounds, past=past) as console:
            meters = Meters()

            def show(event: events.Event) -> None:
                log.append(event)
                console.show(event)
                meters.record(event)

            network = Network(cfg, folder, show)
            folder.write_config(cfg)
            show(events.Started(name=name, rounds=cfg.rounds, seed=cfg.seed, version=__version__))
            reason, heldout = "finished", None
            try:
                heldout = _rounds(cfg, network, folder, show, console)
            except KeyboardInterrupt:
                reason = "interrupted"
            except RayTensorError as error:
                reason = str(error)
                raise
            finally:
                show(events.Stopped(reason=reason))
            _sum_up(folder, console, heldout)
            if reason == "interrupted":  # drawing takes seconds, and Ctrl-C promises few
                print(
                    f"report: raytensor report {folder.path}\ngo on:  raytensor run name={name} resume=auto (and the settings you gave)"
                )
            else:
                from raytensor.telemetry.report import write_report  # matplotlib loads after the first line

                write_report(folder.path)
    return 0 if reason == "finished" else 130


def _rounds(
    cfg: config.RunConfig, network: Network, folder: RunFolder, show: Show, console: Console
) -> dict[str, float | None]:
    from raytensor.telemetry.tracker import make_tracker, round_metrics

    stopping = threading.Event()

    def stop(*_: object) -> None:
        # Once: a second Ctrl-C must not keep the first from ending what was started.
        if not stopping.is_set():
            stopping.set()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with network:
            tracker = make_tracker(cfg.tracker, folder.path, folder.name)
            show(events.Phase(text="playing rounds; the first one takes longer, since the miners warm up in it"))
            try:
                for number in range(network.first_round, cfg.rounds + 1):
                    show(network.round.play(number))
                    tracker.log(round_metrics(console.history), step=number)
                    every = cfg.miners.checkpoint_every
                    if every and (number % every == 0 or number == cfg.rounds):
                        network.checkpoint(number)
                return network.finish()
            finally:
                tracker.finish(timeout_s=2.0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sum_up(folder: RunFolder, console: Console, heldout: dict[str, float | None] | None) -> None:
    summary = build_summary(console.history, name=folder.name, heldout=heldout, disk_bytes=disk_use(folder.path))
    folder.write_summary(summary)
    console.finish(summary)


def _dry_run(cfg: config.RunConfig) -> str:
    from raytensor.cluster import bill

    address = cfg.cluster.address or os.environ.get("RAY_ADDRESS")
    cpus = cfg.cluster.num_cpus or max(2, os.cpu_count() or 1)
    where = (
        f"the cluster at {address} (counted with this machine's {cpus} CPUs)"
        if address
        else f"a local Ray with {cpus} CPUs"
    )
    return f"{config.to_yaml(cfg)}\n# resources per role, on {where}:\n" + "".join(
        f"# {line}\n" for line in bill(needs(cfg, cpus)).splitlines()
    )
