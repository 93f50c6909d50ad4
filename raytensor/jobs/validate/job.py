"""The `validate` job, from the command line to its end.

In: the command line. Out: an exit status, and a folder with the state. Knows nothing of how a subnet is validated
(validators/) or of which actors it takes (stack.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raytensor import __version__, config
from raytensor.config.validate import ValidateConfig
from raytensor.data import corpus
from raytensor.errors import ChainUnavailable, cause_of
from raytensor.jobs.session import Session
from raytensor.jobs.validate.view import Shown, ShownHotkey, View
from raytensor.telemetry import events

if TYPE_CHECKING:
    from raytensor.jobs.validate.stack import ValidatorStack

log = logging.getLogger(__name__)

TICK_S = 0.2
SAVE_EVERY_S = 5.0
END_S = 60.0  # to wait for the chain's answers after the last round

HELP = """usage: raytensor validate [--json] [group=choice] [key=value] ...

Validates any number of subnets with any number of hotkeys, on one pool of scorers and one chain writer. It queries
the miners of each subnet's metagraph by signed HTTP, scores their answers, writes every score to disk before it counts,
and submits weights before each epoch. It runs until Ctrl-C. The same name resumes it, also after a crash. Only hotkeys
are read, never a coldkey.

A subnet that fails is retried after a pause; the others continue. Overdue weights raise an alarm (settings of `watch`).

examples:
  raytensor validate netuids=[1] hotkeys=[mywallet/myhotkey]
  raytensor validate netuids=[1,3,9] hotkeys=[cold/hot1,cold/hot2] chain.network=test validators.num_scorers=4
  raytensor validate hotkeys=[cold/hot1] subnets='[{netuid: 5, mechanism: {path: mypackage.rules.Mine}]'
  raytensor validate netuids=[1] hotkeys=[//Alice] chain.network=ws://127.0.0.1:9944 asking.allow_local_addresses=true
  raytensor validate netuids=[1] hotkeys=[cold/hot1] dry_run=true   check the settings, print what would run, stop
  raytensor replay runs/validator/netuid1                           recompute the weights from the evidence
"""


def validate_main(argv: Sequence[str]) -> int:
    """`raytensor validate ...`: returns the exit status."""
    if config.asks_for_help(argv):
        print(config.help_page("validate", HELP, argv), end="")
        return 0
    from raytensor.commands import options  # loads substrate-interface, which --help does not need

    shorts = {"--json": "json=true", "--dry-run": "dry_run=true"}
    typed = options.typed_settings("validate", [shorts.get(arg, arg) for arg in argv])
    cfg = config.compose("validate", typed)
    if cfg.dry_run:
        print(_dry_run(cfg), end="")
        return 0
    return run(cfg)


def run(cfg: ValidateConfig) -> int:
    """Validate until it is stopped, or every subnet has its rounds. Returns 0, or 130 when it was stopped."""
    from raytensor.jobs.validate.stack import ValidatorStack  # imports Ray and torch

    up: list[ValidatorStack] = []  # the stack, once it is up

    def work(session: Session[View]) -> None:
        stack = session.stack.enter_context(ValidatorStack(cfg, session.folder, session.show, session.meters))
        names = {stack.ss58[text]: text for text in cfg.hotkeys}
        session.begin()
        session.show(events.ValidatorUp(cfg.name, cfg.chain.network, tuple(stack.hotkeys_of), names, __version__))
        session.doing("")
        up.append(stack)
        stack.operator.start()
        _loop(stack, session)

    def sum_up(session: Session[View], reason: str) -> None:
        for stack in up:
            _save(stack)
            session.view.table_once()
        if reason != "finished" and not cfg.json:
            print(f"go on: raytensor validate name={cfg.name} (and the settings you gave)")

    def make_view(session: Session[View]) -> View:
        def notes() -> list[str]:
            return [f"{what}: {why}" for what, why in up[0].watchdog.troubles.items()] if up else []

        return View(f"raytensor validate {cfg.name}", lambda: _rows(up[0]) if up else [], as_json=cfg.json, notes=notes)

    return Session("validate", cfg, make_view, resume="auto", rounds=None).run(work, sum_up)


def _loop(stack: ValidatorStack, session: Session[View]) -> None:
    """Returns when every subnet has its rounds and the chain has answered; a signal ends it by an exception."""
    saved_at, done_at = 0.0, 0.0
    while True:
        stack.operator.tick()
        stack.handover.poll()
        for netuid in stack.hotkeys_of:
            stack.watchdog.look(netuid, stack.follower.seen(netuid).view, stack.handover.last_try)
        stack.watchdog.check_silence(*stack.follower.silence)
        stack.watchdog.check_writer(stack.handover.stopped, stack.handover.silent_s)
        stack.watchdog.check(stack.troubles)
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            saved_at = time.monotonic()
            stack.watchdog.disk(_save(stack) or session.trouble)
        stack.watchdog.beat()
        if stack.operator.done:
            if not done_at:
                done_at = time.monotonic()
                session.finished()
            # What the chain has not answered by then is in the writer's journal, for the next process.
            if stack.handover.idle or time.monotonic() - done_at > END_S:
                return
        time.sleep(TICK_S)


def _save(stack: ValidatorStack) -> str:
    """Save what a later process resumes from. Returns why it can't be saved: the chain writer and the rounds go on."""
    try:
        stack.save()
    except OSError as error:
        log.error("the state can't be saved: %s", error)
        return f"{stack.folder.state}: {error.strerror}"
    return ""


def _rows(stack: ValidatorStack) -> list[Shown]:
    """A line for each subnet and its hotkeys, for the view."""
    shown, health = [], stack.watchdog.health
    for row in stack.operator.rows:
        netuid, metagraph = row.netuid, stack.follower.seen(row.netuid).metagraph
        stakes = dict(zip(metagraph.hotkeys, metagraph.stake_alpha_rao.tolist())) if metagraph is not None else {}
        known = [(text, health.get((netuid, one)), stakes.get(one)) for one, text in stack.hotkeys_of[netuid].items()]
        shown.append(Shown(row, stack.clock(netuid), [ShownHotkey(netuid, *one) for one in known]))
    return shown


def _dry_run(cfg: ValidateConfig) -> str:
    from raytensor.jobs import preflight  # imports Ray, which `--help` does not need
    from raytensor.jobs.validate.stack import keys, needs, registered, with_shared_state

    with_shared_state(cfg)  # imports the mechanisms
    corpus.refuse_missing(cfg.data)
    refs = keys(cfg)
    lines = ["hotkeys:", *(f"  {text}  {ref.ss58}" for text, ref in refs.items()), "subnets:"]
    for rules in cfg.all_subnets:
        lines.append(f"  {rules.netuid}  {rules.mechanism.path}, hotkeys {', '.join(rules.hotkeys or cfg.hotkeys)}")
    try:
        with preflight.patience(f"asking the chain at {cfg.chain.network}"):
            found = registered(cfg, refs)
        lines += [f"warning: {what} (fix: {fix})" for what, fix in found.missing]
    except ChainUnavailable as error:
        lines.append(f"the subnets and registrations were not checked: {cause_of(error)}")
    lines += preflight.resources(cfg.cluster, lambda found: needs(cfg))
    return config.to_yaml(cfg) + preflight.as_comments(lines)
