"""A whole network on one machine or cluster: started, played and taken down.

In: a `RunConfig` and a claimed run folder. Out: rounds, checkpoints, held-out losses.
Waits for: the parts' start, and at the end the chain, each with a time-out.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from raytensor.config import RunConfig
from raytensor.jobs.run.chain_start import ChainStart, start_ray
from raytensor.jobs.run.loop import RunLoop
from raytensor.jobs.run.plan import identities, with_folders
from raytensor.jobs.run.start import Running, Starter
from raytensor.jobs.session import Session


class Network:
    """A context manager: it starts all parts, and leaving it ends them in reverse.

    first_round  that is played next.

    Raises `RayTensorError` from `__enter__` when a part can't start; what had started is ended first.
    """

    def __init__(self, cfg: RunConfig, session: Session[Any]) -> None:
        self.folder, self.show, self._save, self._phase = session.folder, session.show, session.save, session.phase
        self.cfg = with_folders(cfg, self.folder.path)
        self._resumed_from: int | None = session.state["round"] if session.state else None
        self.first_round = (self._resumed_from or 0) + 1
        self._stack = ExitStack()
        self._running: Running | None = None
        self._chain: ChainStart | None = None

    def __enter__(self) -> Network:
        embedded = not self.cfg.chain.endpoint
        self._phase("starting the chain, and Ray (takes about 7 s)" if embedded else "starting Ray (takes about 7 s)")
        neurons = identities(self.cfg)
        try:
            chain = self._chain = ChainStart(self.cfg, self.folder.path, neurons, self._phase, self._stack)
            num_hosts = start_ray(self.cfg, self._phase, self._stack)  # its processes start while torch is imported
            starter = Starter(self.cfg, self.folder, neurons, self._resumed_from, self.show, self._stack)
            self._running = starter.start(chain, num_hosts)
        except BaseException:  # also an interruption: without a return nobody would call `__exit__`
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
        if not cfg.chain.endpoint and tick is not None and self._chain is not None:
            self._phase("making blocks until the consensus of the last weights")
            self._chain.make_blocks(tick.blocks_until_epoch + 1)
            limit_s = 30 + 2 * cfg.chain.tempo * cfg.chain.block_time_s
            parts.follower.wait_for_epoch_after(parts.netuid, tick.block, limit_s)
        return heldout

    def checkpoint(self, number: int) -> None:
        """Save everything that a later process needs to continue after round `number`."""
        parts = self._parts
        if not parts.fleet.checkpoint(number):
            return  # an incident says why; the checkpoint before stays the newest
        parts.records.save_round(self.folder.path, number)
        self._save(round=number)
        parts.records.end_save(self.folder.path, number)

    # ------------------------------------------------------------------------------------------------ inside

    @property
    def _parts(self) -> Running:
        assert self._running is not None, "the network is used inside `with`"
        return self._running
