"""The `run` job: a whole network, from the configuration to the report.

In: the command line. Out: an exit status and a run folder.
Knows nothing of how a network is made (network.py) or what a round does (loop.py).
"""

from collections.abc import Sequence

from raytensor import config
from raytensor.jobs.run.network import Network
from raytensor.jobs.run.plan import MAY_CHANGE, needs, refuse_unusable
from raytensor.jobs.session import Session
from raytensor.telemetry.console import Console
from raytensor.telemetry.summary import build_summary, disk_use
from raytensor.telemetry.tracker import make_tracker, round_metrics

HELP = """usage: raytensor run [group=choice] [key=value] ...

Runs a whole network: starts Ray (or joins the cluster that RAY_ADDRESS names) and the embedded chain, registers
miners and validators, plays rounds, and writes a folder with the results. Ctrl-C stops it; resume=auto continues it.

examples:
  raytensor run                                   eight honest miners, three validators, about two minutes
  raytensor run name=demo rounds=20 miners.num_miners=16 validators.num_validators=4 seed=1
  raytensor run name=demo rounds=40 resume=auto   continue a run that ended or was stopped
  raytensor run experiment=cheats                 five honest miners beside five that cheat
  raytensor run dry_run=true                      check everything, print the configuration and the resources, stop
"""


def run_main(argv: Sequence[str]) -> int:
    """`raytensor run ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("run", HELP, argv), end="")
        return 0
    cfg = config.compose("run", list(argv))
    if not cfg.dry_run:
        refuse_unusable(cfg)
        return play(cfg)
    from raytensor.jobs import preflight  # imports Ray, which a real run does after its first line

    with preflight.patience("checking data, models and the mechanism"):
        refuse_unusable(cfg)
    lines = preflight.resources(cfg.cluster, lambda found: needs(cfg, found.get("CPU", 0.0)))
    print(f"{config.to_yaml(cfg)}\n{preflight.as_comments(lines)}", end="")
    return 0


def play(cfg: config.RunConfig) -> int:
    """Run a network to its last round. Returns 0 when it finished, 130 when it was stopped."""
    heldout: dict[str, float | None] = {}

    def make_view(one: Session[Console]) -> Console:
        return Console(one.folder.path, cfg.rounds, past=one.past)

    session = Session("run", cfg, make_view, resume=cfg.resume, may_change=MAY_CHANGE, rounds=cfg.rounds)

    def sum_up(one: Session[Console], reason: str) -> None:
        _sum_up(one, reason, heldout or None)

    return session.run(lambda one: heldout.update(_rounds(cfg, one)), sum_up)


def _rounds(cfg: config.RunConfig, session: Session[Console]) -> dict[str, float | None]:
    """Play all rounds; the held-out losses by hotkey."""
    network = session.stack.enter_context(Network(cfg, session))
    session.begin()

    tracker = make_tracker(cfg.tracker, session.folder.path, session.folder.name)
    session.stack.callback(tracker.finish, timeout_s=2.0)
    session.phase("playing rounds; the first one takes longer: the miners warm up in it")
    for number in range(network.first_round, cfg.rounds + 1):
        session.show(network.round.play(number))
        session.doing(f"playing round {number + 1}")
        tracker.log(round_metrics(session.view.history), step=number)
        every = cfg.miners.checkpoint_every
        if every and (number % every == 0 or number == cfg.rounds):
            network.checkpoint(number)
    return network.finish()


def _sum_up(session: Session[Console], reason: str, heldout: dict[str, float | None] | None) -> None:
    folder = session.folder
    summary = build_summary(session.view.history, name=folder.name, heldout=heldout, disk_bytes=disk_use(folder.path))
    folder.write_summary(summary)
    session.view.finish(summary)
    if reason == "finished":
        from raytensor.telemetry.report import write_report  # matplotlib, after the first line

        write_report(folder.path)
    else:  # drawing takes seconds, and a stop must not
        print(f"report: raytensor report {folder.path}")
        print(f"go on:  raytensor run name={folder.name} resume=auto (and the settings you gave)")
