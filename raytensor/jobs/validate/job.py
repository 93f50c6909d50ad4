"""The `validate` job, from the command line to its end.

In: the command line. Out: an exit status, and a folder with the state. Knows nothing of how a subnet is validated
(validators/) or of what stands behind it (parts.py).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raytensor import __version__, config
from raytensor.config.validate import ValidateConfig
from raytensor.errors import RayTensorError
from raytensor.jobs.validate.view import Shown, View
from raytensor.telemetry import events
from raytensor.telemetry.event_log import EventLog
from raytensor.telemetry.metrics import Meters
from raytensor.telemetry.runfolder import RunFolder

if TYPE_CHECKING:
    from raytensor.jobs.validate.stack import ValidatorStack

TICK_S = 0.2
SAVE_EVERY_S = 5.0
END_S = 60.0

HELP = """usage: raytensor validate [--json] [group=choice] [key=value] ...

Validates any number of subnets with any number of hotkeys, on one pool of scorers and one writer of the chain. It asks
the miners that a subnet's metagraph names by signed HTTP, scores their answers, keeps every score on disk before it
counts, and hands weights in before each epoch. It runs until Ctrl-C; the same name goes on where it stood, also after
a crash. Only hotkeys are read, never a coldkey.

A subnet that fails rests and is tried again; the others go on. Weights that are overdue on the chain raise an alarm in
the view, in events.jsonl, as the Ray metrics raytensor_weights_overdue and raytensor_weights_age_tempos, and through
watch.webhook_env or watch.command.

examples:
  raytensor validate netuids=[1] hotkeys=[mywallet/myhotkey]
  raytensor validate netuids=[1,3,9] hotkeys=[cold/hot1,cold/hot2] chain.network=test validators.num_scorers=4
  raytensor validate hotkeys=[cold/hot1] subnets='[{netuid: 5, mechanism: {path: mypackage.rules.Mine}}]'
  raytensor validate netuids=[1] hotkeys=[//Alice] chain.network=ws://127.0.0.1:9944 asking.allow_local_addresses=true
  raytensor validate netuids=[1] hotkeys=[cold/hot1] dry_run=true   what would be validated, and stop
  raytensor replay runs/validator/netuid1                           the weights made again from the evidence
"""


def validate_main(argv: Sequence[str]) -> int:
    """`raytensor validate ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("validate", HELP, argv), end="")
        return 0
    shorts = {"--json": "json=true", "--dry-run": "dry_run=true"}
    cfg = config.compose("validate", [shorts.get(arg, arg) for arg in argv])
    if cfg.dry_run:
        print(_dry_run(cfg), end="")
        return 0
    return run(cfg)


def run(cfg: ValidateConfig) -> int:
    """Validate until it is stopped, or every subnet has its rounds. Returns 0, or 130 when it was stopped."""
    from raytensor.jobs.validate.stack import ValidatorStack

    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with RunFolder(Path(cfg.paths.runs) / cfg.name, "auto") as folder, EventLog(folder.events) as log:
            folder.write_config(cfg)
            parts: ValidatorStack | None = None
            view = View(f"raytensor validate {cfg.name}", lambda: _rows(parts), as_json=cfg.json)
            lock, meters = threading.Lock(), Meters()

            def show(event: events.Event) -> None:
                with lock:
                    log.append(event)
                view.show(event)
                meters.record(event)

            reason = "interrupted"
            with view:
                try:
                    with ValidatorStack(cfg, folder, show, meters) as parts:
                        names = {parts.ss58[text]: text for text in cfg.hotkeys}
                        netuids = tuple(rules.netuid for rules in cfg.all_subnets)
                        show(
                            events.ValidatorUp(
                                name=cfg.name,
                                network=cfg.chain.network,
                                netuids=netuids,
                                hotkeys=names,
                                version=__version__,
                            )
                        )
                        parts.operator.start()
                        if _loop(parts, stopping):
                            reason = "finished"
                        view.table_once()
                except RayTensorError as error:
                    reason = str(error)
                    raise
                finally:
                    show(events.Stopped(reason=reason))
        return 0 if reason == "finished" else 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop(parts: ValidatorStack, stopping: threading.Event) -> bool:
    """True when every subnet has its rounds, False when the job was told to stop."""
    saved_at, done_at = 0.0, 0.0
    while not stopping.wait(TICK_S):
        parts.operator.tick()
        parts.handover.poll()
        for netuid in parts.hotkeys_of:
            parts.watchdog.look(netuid, parts.follower.seen(netuid).view, parts.handover.last_try)
        parts.watchdog.listen(*parts.follower.silence)
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            saved_at = time.monotonic()
            parts.save()
        if parts.operator.done:
            done_at = done_at or time.monotonic()
            # What the chain has not said by then is in the writer's journal, for whoever starts it next.
            if parts.handover.idle or time.monotonic() - done_at > END_S:
                parts.save()
                return True
    return False


def _rows(parts: ValidatorStack | None) -> list[Shown]:
    """A line for each subnet, for the view."""
    if parts is None:
        return []
    shown = []
    for row in parts.operator.rows:
        clock, last, health = parts.clock(row.netuid), row.last, parts.watchdog.of(row.netuid)
        cause = row.cause
        if row.state == "failed" and row.retry_at > time.time():
            cause = f"again in {row.retry_at - time.time():.0f} s: {cause}"
        shown.append(
            Shown(
                netuid=row.netuid,
                block=clock.block,
                tempo=clock.tempo,
                blocks_left=max(0, clock.next_epoch - clock.block),
                hotkeys=len(parts.hotkeys_of[row.netuid]),
                round=last.round if last else -1,
                asked=last.asked if last else 0,
                answered=last.answered if last else 0,
                scored=last.scored if last else 0,
                last_set=min((one.last_update for one in health), default=0),
                age_tempos=max((one.age_tempos for one in health), default=None),
                overdue=sum(one.overdue for one in health),
                state=row.state,
                cause=cause,
            )
        )
    return shown


def _dry_run(cfg: ValidateConfig) -> str:
    from raytensor.cluster import bill
    from raytensor.jobs.validate.stack import keys, needs

    lines = [config.to_yaml(cfg).rstrip(), "# hotkeys:"]
    lines += [f"#   {text}  {ref.ss58}" for text, ref in keys(cfg).items()]
    lines += ["# subnets:"]
    for rules in cfg.all_subnets:
        lines.append(f"#   {rules.netuid}  {rules.mechanism.path}, hotkeys {', '.join(rules.hotkeys or cfg.hotkeys)}")
    where = cfg.cluster.address or os.environ.get("RAY_ADDRESS") or "a local Ray"
    lines += [f"# resources per role, on {where}:", *(f"# {line}" for line in bill(needs(cfg)).splitlines())]
    return "\n".join(lines) + "\n"
