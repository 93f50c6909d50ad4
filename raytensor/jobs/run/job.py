"""The `run` job: a whole network, from the configuration to the report.

In: the command line. Out: an exit status and a run folder.
Knows nothing of what a run checks and plays (rounds.py).
"""

from collections.abc import Sequence
from types import ModuleType

from raytensor import config
from raytensor.jobs.session import Session
from raytensor.telemetry.console import Console

# Settings that change how a run is carried out but not what it computes: they may differ when it is resumed.
MAY_CHANGE = ("rounds", "resume", "dry_run", "paths.", "cluster.", "tracker.", "mechanism.collab.folder")
MAY_CHANGE += ("chain.timeout_s", "chain.inclusion_timeout_s", "miners.num_hosts", "miners.cpus_per_host")
MAY_CHANGE += ("miners.gpus_per_host", "miners.train_timeout_s", "miners.checkpoint_every", "miners.wire.")
MAY_CHANGE += ("miners.files", "validators.num_scorers", "validators.cpus_per_scorer", "validators.gpus_per_scorer")
MAY_CHANGE += ("validators.scorer_queue", "validators.deadline_s", "validators.pack_", "validators.score_limit_s")
MAY_CHANGE += ("validators.isolate", "validators.evidence_")

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
    if cfg.dry_run:
        return _rounds().dry_run(cfg)
    return play(cfg)


def play(cfg: config.RunConfig) -> int:
    """Run a network to its last round. Returns 0 when it finished, 130 when it was stopped."""
    heldout: dict[str, float | None] = {}
    session = Session(
        "run",
        cfg,
        lambda one: Console(one.folder.path, cfg.rounds, past=one.past),
        resume=cfg.resume,
        may_change=MAY_CHANGE,
        rounds=cfg.rounds,
    )
    return session.run(
        lambda one: heldout.update(_rounds().play(cfg, one)),
        lambda one, reason: _rounds().sum_up(one, reason, heldout or None),
        lambda: _rounds().refuse_unusable(cfg),
    )


def _rounds() -> ModuleType:
    from raytensor.jobs.run import rounds  # imports Ray and numpy: the first line is on the screen before

    return rounds
