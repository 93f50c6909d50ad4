"""The batches of a training, read ahead by a thread.

    Mixture of prepared folders (reads this rank's rows only) | PackedStream (reads all rows, keeps this rank's)
    -> thread -> queue of `AHEAD` batches -> Engine.train_steps

In: a `TrainConfig`, the tokenizer, this rank's place. Out: int64 [rows of this rank, T + 1], in page-locked memory
where the rank has a GPU. The position belongs to the batches that were taken, not to those that were read ahead.
Waits for: the next batch; an error of the thread is raised by `batch`. Bounds: `AHEAD` + 1 batches in memory.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from raytensor.config.train import TrainConfig
from raytensor.data.mixture import Mixture
from raytensor.data.packed import PackedStream
from raytensor.data.tokenizer import Tokenizer
from raytensor.training import devices
from raytensor.training.ranks import Ranks

AHEAD = 4


class Source(Protocol):
    """What batches come from: `Mixture`, `PackedStream`."""

    @property
    def epoch(self) -> int: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


class Batches:
    """`restore` before the first `batch`. A context manager: leaving it ends the thread.

    waited_s  seconds that `batch` has waited for the thread.
    """

    def __init__(self, source: Source, read: Callable[[], np.ndarray], *, pinned: bool = False) -> None:
        self._source, self._read, self._pinned = source, read, pinned
        self._queue: queue.Queue[tuple[np.ndarray, dict[str, Any], int] | BaseException] = queue.Queue(AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="batches", daemon=True)
        self._state, self.epoch = source.state(), source.epoch
        self.waited_s = 0.0

    def batch(self) -> np.ndarray:
        """The next batch. Raises what reading it raised."""
        if self._thread.ident is None:
            self._thread.start()
        began = time.perf_counter()
        found = self._queue.get()
        self.waited_s += time.perf_counter() - began
        if isinstance(found, BaseException):
            raise found
        rows, self._state, self.epoch = found
        return rows

    def state(self) -> dict[str, Any]:
        """The position before the next batch."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Resume at a saved position. Raises `DataError` when it was taken from another corpus."""
        assert self._thread.ident is None
        self._source.restore(state)
        self._state, self.epoch = self._source.state(), self._source.epoch

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=60)

    def _fill(self) -> None:
        while not self._over.is_set():
            try:
                rows = np.ascontiguousarray(self._read(), np.int64)
                if self._pinned:
                    rows = torch.from_numpy(rows).pin_memory().numpy()
                self._put((rows, self._source.state(), self._source.epoch))
            except Exception as error:  # the thread's edge: `batch` raises it
                return self._put(error)

    def _put(self, found: Any) -> None:
        while not self._over.is_set():
            try:
                return self._queue.put(found, timeout=0.1)
            except queue.Full:
                continue


def of(cfg: TrainConfig, coder: Tokenizer, ranks: Ranks) -> Batches:
    """The batches of a rank. Raises `ConfigError` and `DataError` for prepared folders that can't be used."""
    training, pinned = cfg.training, devices.is_gpu(ranks.device)
    shape = {"seq_len": training.seq_len, "batch_size": training.batch_size}
    if cfg.data.prepared:
        mixture, mine = (
            Mixture(cfg.data, coder.digest(), seed=cfg.seed, **shape),
            ranks.mine(np.arange(training.batch_size)),
        )
        return Batches(mixture, lambda: mixture.batch(mine), pinned=pinned)
    stream = PackedStream(cfg.data, coder, **shape)
    return Batches(stream, lambda: ranks.mine(stream.batch()), pinned=pinned)
