"""The writer's thread: it runs the pipeline for each new block and renews the lease of the keys.

In: the pipeline, the outbox, the queue, the lease. Out: `trouble` and `stopped` of the pipeline show its state.
Waits for: new orders, at most a second. Only `close` ends the thread: after a tick that fails, everything is loaded
from the journal as at a start, and the next tick follows. Once another writer has the lease, nothing is sent any more.
"""

import logging
import threading
import time
from collections.abc import Iterable

from raytensor.chain.writer.foreign import taken_over
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.lease import Holder, Lease
from raytensor.chain.writer.orders import OrderQueue
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.pipeline import Pipeline
from raytensor.errors import ChainUnavailable

log = logging.getLogger(__name__)

FASTEST_POLL_S, SLOWEST_POLL_S = 0.05, 1.0
OFFLINE_PAUSE_S = 0.5
PRUNE_EVERY_S, KEPT_S = 3600.0, 2 * 86_400.0
RESERVE_AFTER_S, RESERVE_EVERY_S = 2.0, 60.0  # short-lived writers make none
_IN_USE = "stop the program that sent it, then `raytensor weights take-over` or take_over()"


class LeaseKeeper:
    """Renews a lease of `length_s` in time. taken_by: the writer that has taken it over; then it is lost for good."""

    def __init__(self, lease: Lease, length_s: float) -> None:
        self._lease, self._length_s = lease, length_s
        self.renew_at = time.monotonic() + length_s / 3
        self.taken_by: Holder | None = None

    def keep(self) -> bool:
        """False once another writer has the lease."""
        if self.taken_by is None and (time.monotonic() >= self.renew_at or not self._lease.valid):
            self.taken_by = self._lease.renew()
            self.renew_at = time.monotonic() + self._length_s / 3
        return self.taken_by is None

    def fence(self) -> None:
        """Check before each send. Raises ChainUnavailable if another writer has taken the lease during a request."""
        if not self._lease.valid and not self.keep():
            raise ChainUnavailable("another writer has the lease of these keys: nothing more is sent")


class WriterThread:
    """Runs from `start` to `close`.

    keys             addresses that stop when the lease is lost.
    stop_on_foreign  stop a key when the chain has an extrinsic of it that this writer did not send.
    errors           ticks that failed for another reason than the connection.
    has_reserve      the journal keeps space for writing while the disk is full.
    foreign          signer -> the newest extrinsic of another program, as a sentence.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        outbox: Outbox,
        queue: OrderQueue,
        journal: Journal,
        keeper: LeaseKeeper,
        keys: Iterable[str],
        *,
        stop_on_foreign: bool,
    ) -> None:
        self._pipeline, self._outbox, self._queue = pipeline, outbox, queue
        self._journal, self._keeper = journal, keeper
        self._keys, self._stop_on_foreign = tuple(keys), stop_on_foreign
        self._stopping = threading.Event()
        self._prune_at, self._reserve_at = time.monotonic() + 60.0, time.monotonic() + RESERVE_AFTER_S
        self._loss_reported = False
        self._behind = False  # something failed half-way: what is in memory is loaded from the journal anew
        self._thread = threading.Thread(target=self._run, name="chain-writer", daemon=True)
        self._stopped_at: dict[str, int] = {}  # block of the foreign extrinsic that stopped a key
        self._good_at = time.monotonic()
        self.errors, self.has_reserve = 0, False
        self.foreign: dict[str, str] = {}

    @property
    def age_s(self) -> float:
        """Seconds since a tick ended without trouble, or since the start."""
        return time.monotonic() - self._good_at

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """End the thread; waits for it at most `timeout_s` seconds."""
        self._stopping.set()
        self._thread.join(timeout=timeout_s)

    def _run(self) -> None:
        pause = FASTEST_POLL_S
        while not self._stopping.is_set():
            try:
                if self._keep_lease():
                    if self._behind:
                        self._pipeline.reload()
                        self._behind = False
                    self._pipeline.tick()
                    self._check_foreign()
                    self._maintain()
                self._pipeline.trouble = ""
                self._good_at = time.monotonic()
                busy = bool(self._outbox.open) or self._queue.has_news
                # Poll often while something is in flight.
                pause = FASTEST_POLL_S if self._queue.has_news else min(SLOWEST_POLL_S, pause * (1.2 if busy else 1.5))
                self._queue.wait_for_news(pause)
            except ChainUnavailable as error:
                self._behind = True
                if not self._pipeline.trouble:
                    log.warning("%s", error)
                self._pipeline.trouble = str(error)
                self._stopping.wait(OFFLINE_PAUSE_S)
            except BaseException as error:  # the supervisor's edge: the thread goes on after whatever was raised in it
                self.errors += 1
                self._behind = True
                self._pipeline.trouble = f"{type(error).__name__}: {error}"
                log.exception("the chain writer's thread")
                self._stopping.wait(SLOWEST_POLL_S)

    def _keep_lease(self) -> bool:
        if self._keeper.keep():
            return True
        holder = self._keeper.taken_by
        if holder is not None and not self._loss_reported:
            self._loss_reported = True
            log.error("%s: this writer stops", holder.sentence)
            self._pipeline.stopped |= dict.fromkeys(self._keys, f"fix: {holder.sentence}")
        return False

    def _check_foreign(self) -> None:
        """Stop a key that another program uses; a harmless call of another program is reported, and the key goes on."""
        while self._outbox.foreign:
            found = self._outbox.foreign.pop(0)
            stops = self._stop_on_foreign and not found.harmless
            log.error("%s", found.sentence) if stops else log.warning("%s", found.sentence)
            self.foreign[found.signer] = found.sentence
            if stops:
                self._stopped_at[found.signer] = found.block
                self._pipeline.stopped.setdefault(found.signer, f"fix: {found.sentence}; {_IN_USE}")
        for signer, block in taken_over(self._journal).items() if self._pipeline.stopped else ():
            if signer in self._stopped_at and block >= self._stopped_at[signer]:
                log.warning("%s was taken over at block %d: it goes on", signer, block)
                del self._stopped_at[signer]
                self._pipeline.stopped.pop(signer, None)

    def _maintain(self) -> None:
        if time.monotonic() >= self._reserve_at:
            self._reserve_at = time.monotonic() + RESERVE_EVERY_S
            self.has_reserve = self._journal.keep_reserve()
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_EVERY_S
            self._journal.prune(time.time() - KEPT_S)
