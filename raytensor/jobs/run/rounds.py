"""What a run does once its first line is on the screen: checks, rounds, checkpoints, the summary.

In: a `RunConfig` and the session. Out: held-out losses, summary and report.
Knows nothing of how a network is made (network.py) or what a round does (loop.py).
"""

from raytensor import config
from raytensor.jobs import preflight
from raytensor.jobs.run.network import Network
from raytensor.jobs.run.plan import needs, refuse_unusable
from raytensor.jobs.session import Session
from raytensor.supervised import tell
from raytensor.telemetry.console import Console
from raytensor.telemetry.history import History
from raytensor.telemetry.summary import build_summary, disk_use
from raytensor.telemetry.tracker import Tracker, make_tracker, round_metrics


def dry_run(cfg: config.RunConfig) -> int:
    """Check everything, print the configuration and the resources. Returns 0."""
    with preflight.patience("checking data, models and the mechanism"):
        refuse_unusable(cfg)
    lines = preflight.resources(cfg.cluster, lambda found: needs(cfg, found))
    print(f"{config.to_yaml(cfg)}\n{preflight.as_comments(lines)}", end="")
    return 0


def play(cfg: config.RunConfig, session: Session[Console]) -> dict[str, float | None]:
    """Play all rounds; the held-out losses by hotkey."""
    network = session.stack.enter_context(Network(cfg, session))
    session.begin()

    tracker = make_tracker(cfg.tracker, session.folder.path, session.folder.name)
    session.stack.callback(tracker.finish, timeout_s=2.0)
    session.phase("playing rounds; the first one takes longer: the miners warm up in it")
    for number in range(network.first_round, cfg.rounds + 1):
        session.show(network.round.play(number))
        session.doing(f"playing round {number + 1}")
        tell("tracker", _track, tracker, session.view.history, number)
        every = cfg.miners.checkpoint_every
        if every and (number % every == 0 or number == cfg.rounds):
            network.checkpoint(number)
    return network.finish()


def sum_up(session: Session[Console], reason: str, heldout: dict[str, float | None] | None) -> None:
    """Write the summary, and the report of a finished run; else print how to go on."""
    folder = session.folder
    summary = build_summary(session.view.history, name=folder.name, heldout=heldout, disk_bytes=disk_use(folder.path))
    folder.write_summary(summary)
    session.view.finish(summary)
    if reason == "finished":
        from raytensor.telemetry.report import write_report  # imports matplotlib

        write_report(folder.path)
    else:  # drawing takes seconds, and a stop must not
        print(f"report: raytensor report {folder.path}")
        print(f"go on:  raytensor run name={folder.name} resume=auto (and the settings you gave)")


def _track(tracker: Tracker, history: History, number: int) -> None:
    tracker.log(round_metrics(history), step=number)
