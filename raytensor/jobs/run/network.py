"""A whole network on one machine or cluster: started, played and taken down.

In: a `RunConfig` and a claimed run folder. Out: rounds, checkpoints, held-out losses.
Waits for: the parts' start, and at the end the chain, each with a time-out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from raytensor.config import RunConfig
from raytensor.errors import RunError
from raytensor.jobs.run.plan import identities, settled, with_folders
from raytensor.telemetry import events
from raytensor.telemetry.runfolder import RunFolder

if TYPE_CHECKING:
    from raytensor.jobs.run.loop import RunLoop
    from raytensor.jobs.run.start import Running

Show = Callable[[events.Event], None]


class Network:
    """A context manager: it starts all parts, and leaving it ends them in reverse.

    first_round  that is played next.

    Raises `RunError` when the folder holds a run with other settings, and `RayTensorError` from `__enter__` when a part
    can't start; what had started is ended first.
    """

    def __init__(self, cfg: RunConfig, folder: RunFolder, show: Show) -> None:
        self.cfg, self.folder, self.show = with_folders(cfg, folder.path), folder, show
        self._resumed_from = self._resume_round()
        self.first_round = (self._resumed_from or 0) + 1
        self._stack = ExitStack()
        self._running: Running | None = None

    def __enter__(self) -> Network:
        # Heavy packages: the first line is on the screen by now, and the chain starts before torch is imported.
        from raytensor.jobs.run.chain_start import ChainStart

        embedded = not self.cfg.chain.endpoint
        self._phase("starting the chain, and Ray (takes about 7 s)" if embedded else "starting Ray (takes about 7 s)")
        neurons = identities(self.cfg)
        try:
            chain = ChainStart(self.cfg, self.folder.path, neurons, self._phase, self._stack)
            from raytensor.jobs.run.start import Starter  # as above

            starter = Starter(self.cfg, self.folder, neurons, self._resumed_from, self.show, self._stack)
            self._running = starter.start(chain)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def round(self) -> RunLoop:
        """The loop, which plays a round."""
        return self._parts.loop

    def finish(self) -> dict[str, float | None]:
        """After the last round: wait for what is in flight, and for one more epoch; held-out losses by hotkey."""
        cfg, parts = self.cfg, self._parts
        self._phase("measuring the held-out loss of every miner")
        heldout = parts.fleet.heldout_losses()
        parts.handover.settle(cfg.chain.inclusion_timeout_s + cfg.chain.timeout_s)
        tick = parts.follower.seen(parts.netuid).tick
        if not cfg.chain.endpoint and tick is not None:
            self._phase("waiting for the consensus of the last weights")
            limit_s = 30 + 2 * cfg.chain.tempo * cfg.chain.block_time_s
            parts.follower.wait_for_epoch_after(parts.netuid, tick.block, limit_s)
        return heldout

    def checkpoint(self, number: int) -> None:
        """Save everything that a later process needs to continue after round `number`."""
        parts = self._parts
        if not parts.fleet.checkpoint(number):
            return  # an incident says why; the checkpoint before stays the newest
        parts.records.save_round(self.folder.path, number)
        self.folder.save_state({"round": number, "config": settled(self.cfg)})
        parts.records.end_save(self.folder.path, number)

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _parts(self) -> Running:
        assert self._running is not None, "the network is used inside `with`"
        return self._running

    def _phase(self, text: str) -> None:
        self.show(events.Phase(text=text))

    def _resume_round(self) -> int | None:
        """The round after which an earlier process stopped. Raises `RunError` if it had other settings."""
        state = self.folder.load_state() if self.folder.resuming else None
        if state is None:
            return None
        before, now = state["config"], settled(self.cfg)
        differs = [
            f"{key}={now.get(key)!r} (was {before.get(key)!r})"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if differs:
            raise RunError(
                f"{self.folder.path} was begun with other settings: {', '.join(differs)}\n"
                f"  fix: give the same settings again (config.yaml there has them), or take another name"
            )
        return int(state["round"])
