"""The `mine` job, from its settings to its end.

In: settings as typed. Out: an exit status, and a folder with the models and the state. Knows nothing of how a model is
trained or served (miners/) or of which actors it takes (stack.py).
"""

import logging
import time
from collections.abc import Callable, Sequence

from raytensor import config
from raytensor.commands import options
from raytensor.config.mine import MineConfig
from raytensor.jobs import preflight
from raytensor.jobs.hotkeys import all_uids, hotkey_refs
from raytensor.jobs.mine.front import own_ip
from raytensor.jobs.mine.stack import MinerStack, needs
from raytensor.jobs.mine.view import MinerView, Shown
from raytensor.jobs.run.plan import refuse_unusable
from raytensor.jobs.session import Session

log = logging.getLogger(__name__)

TICK_S = 0.1
SAVE_EVERY_S = 5.0
END_S = 30.0  # to wait for the chain's answers after the last round


def main(argv: Sequence[str]) -> int:
    """Compose the configuration and mine, or only check. Returns the exit status."""
    shorts = {"--json": "json=true", "--dry-run": "dry_run=true"}
    cfg = config.compose("mine", options.typed_settings("mine", [shorts.get(arg, arg) for arg in argv]))
    if cfg.dry_run:
        print(_dry_run(cfg), end="")
        return 0
    return run(cfg)


def run(cfg: MineConfig) -> int:
    """Mine until it is stopped, or every round is trained. Returns 0, or 130 when it was stopped."""
    refuse_unusable(cfg)
    up: list[MinerStack] = []  # the stack, once it is up

    def work(session: Session[MinerView]) -> None:
        stack = session.stack.enter_context(MinerStack(cfg, session.folder, session.show, session.meters))
        session.begin()
        session.show(stack.up())
        session.doing("")
        up.append(stack)
        _loop(stack, session.finished, lambda: session.trouble)

    def sum_up(session: Session[MinerView], reason: str) -> None:
        for stack in up:
            _save(stack)
            stack.fate.look_at_traffic(stack.front.traffic())
            session.view.table_once()
        if reason != "finished" and not cfg.json:
            print(f"go on: raytensor mine name={cfg.name} (and the settings you gave)")

    def make_view(session: Session[MinerView]) -> MinerView:
        def rows() -> list[Shown]:
            return up[0].rows() if up else []

        return MinerView(f"raytensor mine {cfg.name}", rows, lambda: up[0].summary() if up else "", as_json=cfg.json)

    return Session("mine", cfg, make_view, resume="auto", rounds=None).run(work, sum_up)


def _loop(stack: MinerStack, finished: Callable[[], None], trouble: Callable[[], str]) -> None:
    """Returns when every round is trained and the chain has answered; a signal ends it by an exception.

    finished  called when every round is trained. trouble: why events can't be written.
    """
    saved_at, done_at = 0.0, 0.0
    while True:
        stack.tick()
        if time.monotonic() - saved_at > SAVE_EVERY_S:
            saved_at = time.monotonic()
            stack.fate.check_disk(_save(stack) or trouble())
        if stack.trainer.done:
            if not done_at:
                done_at = time.monotonic()
                finished()
            if stack.settled or time.monotonic() - done_at > END_S:
                return
        time.sleep(TICK_S)


def _save(stack: MinerStack) -> str:
    """Save what a later process resumes from. Returns why it can't be saved: the miners go on."""
    try:
        stack.save()
    except OSError as error:
        log.error("the state can't be saved: %s", error)
        return f"{stack.folder.state}: {error.strerror}"
    return ""


def _dry_run(cfg: MineConfig) -> str:
    refuse_unusable(cfg)
    refs = hotkey_refs(cfg.hotkeys, cfg)
    uids = all_uids(cfg.chain.endpoints, cfg.chain.timeout_s, cfg.netuids, refs, cfg.chain.network)
    lines = ["hotkeys:", *(f"  {text}  {ref.ss58}" for text, ref in refs.items()), "subnets:"]
    for netuid in cfg.netuids:
        own = ", ".join(f"{text} has uid {uids[netuid, ref.ss58]}" for text, ref in refs.items())
        lines.append(f"  {netuid}  {own}")
    ip = cfg.miners.wire.ip or (own_ip(cfg.miners.wire) if cfg.miners.wire.ip_from else "")
    lines.append(f"published: {ip or 'the address of this node'}, port {cfg.miners.wire.port or 'any'}, no fee")
    lines += preflight.resources(cfg.cluster, lambda found: needs(cfg, found))
    return config.to_yaml(cfg) + preflight.as_comments(lines)
