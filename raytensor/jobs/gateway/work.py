"""The `gateway` job, from its settings to its end.

In: settings as typed. Out: an exit status, and a folder with the usage. Knows nothing of how a request is answered.
"""

import time
from collections.abc import Callable, Sequence

from rich.console import Group
from rich.text import Text

from raytensor import config
from raytensor.commands import options
from raytensor.commands.request_signer import ProcessSigner
from raytensor.config.gateway import GatewayConfig
from raytensor.errors import ConfigError, RunError
from raytensor.jobs.gateway.keys import Usage
from raytensor.jobs.gateway.server import GatewayServer
from raytensor.jobs.hotkeys import all_uids, hotkey_refs
from raytensor.jobs.session import Session
from raytensor.jobs.validate import view
from raytensor.telemetry import events

TICK_S = 0.2
SAVE_EVERY_S = 5.0
SILENT_S = 60.0


class ChainWatch:
    """Tells, from the main thread, when the chain stops to answer and when it answers again."""

    def __init__(self, show: Callable[[events.Event], None]) -> None:
        self._show, self._silent = show, False

    def look(self, silent_s: float, why: str) -> None:
        """silent_s: seconds without a new block beyond what is normal, 0.0 while it answers."""
        silent = silent_s > SILENT_S
        if silent == self._silent:
            return
        self._silent = silent
        if silent:
            text = f"the chain has not answered for {silent_s:.0f} s: {why}"
            self._show(
                events.Warned(text=text, fix="requests go by the newest metagraph; it is asked again until it does")
            )
        else:
            self._show(events.Phase(text="the chain answers again"))


class GatewayView(view.View):
    """The newest lines; a gateway has no table."""

    def table(self) -> Group:
        with self._lock:
            return Group(Text(self._title, style="italic"), *self._newest)


def main(argv: Sequence[str]) -> int:
    """Compose the configuration and serve. Returns the exit status."""
    cfg = config.compose("gateway", [*options.job_settings(), *("json=true" if a == "--json" else a for a in argv)])
    return run(cfg)


def save_usage(usage: Usage, before: str, show: Callable[[events.Event], None]) -> str:
    """Save the usage. Returns why it can't be saved ("" if it was), and tells the first of several failures.

    Requests are answered all the same. before: what the call before has returned.
    """
    try:
        usage.save()
    except OSError as error:
        if not before:
            fix = "free space under paths.runs: the usage since then is lost if the gateway ends before"
            show(events.Warned(text=f"the usage can't be written: {error.strerror}", fix=fix))
        return str(error)
    return ""


def run(cfg: GatewayConfig) -> int:
    """Serve until it is stopped: returns 130."""
    if cfg.hotkey is None:
        raise ConfigError("hotkey=null: must name the hotkey that signs requests to miners: hotkey=mywallet/myhotkey")
    refs = hotkey_refs([cfg.hotkey], cfg)
    signer = ProcessSigner(refs[cfg.hotkey])  # forked before this process has threads or connections

    def work(session: Session[GatewayView]) -> None:
        session.phase("reading the subnets")
        all_uids(cfg.chain.endpoints, cfg.chain.timeout_s, cfg.netuids, refs, cfg.chain.network)
        server = session.stack.enter_context(GatewayServer(cfg, signer, session.folder.path / "usage.json"))
        session.begin()
        models = ", ".join(f"subnet-{netuid}" for netuid in cfg.netuids)
        session.phase(f"ready at {server.url} with the models {models}; keys of {cfg.keys}")
        session.doing("")
        saved_at, trouble = time.monotonic(), ""
        chain = ChainWatch(session.show)
        while not server.ended:
            time.sleep(TICK_S)
            chain.look(*server.follower.silence)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                saved_at = time.monotonic()
                trouble = save_usage(server.usage, trouble, session.show)
        raise RunError("the HTTP server ended; job.log says why")

    def make_view(session: Session[GatewayView]) -> GatewayView:
        return GatewayView(f"raytensor gateway {cfg.name}", list, as_json=cfg.json)

    try:
        return Session("gateway", cfg, make_view, resume="auto", rounds=None).run(work, lambda session, reason: None)
    finally:
        signer.close()
