"""Responders: what the miners of a subnet do with questions that carry a payload.

In: tasks. Out: payloads; a `Response` of them. A responder is the miner's half of a mechanism: the subnet's, or a
better one of a miner's own (`mechanism.responder=package.module.Class`). One is made for each hotkey.
Waits for: an answer waits for the training of its own miner that is under way. Knows nothing of Ray or of the wire.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raytensor import disk
from raytensor.config import MinerProfile, MinersJob
from raytensor.data.text import Text
from raytensor.mechanisms.base import load_class
from raytensor.miners.fifo_lock import FifoLock
from raytensor.payload import Payload
from raytensor.types import Response, Task


@dataclass(frozen=True)
class Setup:
    """What a responder is made with.

    hotkey (ss58) and profile (one of miners.profiles) are its miner's; options: mechanism.options; seed and text: the
    job's; device: "cpu" or "cuda".
    """

    hotkey: str
    profile: MinerProfile = field(default_factory=MinerProfile)
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    text: Text | None = None
    device: str = "cpu"


class Responder:
    """A miner's answers. Subclasses implement `answer`; the other methods are for miners that learn."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def answer(self, task: Task) -> Payload | None:
        """The payload of the answer to `task.payload`, as `task.answer` declares it; None for no answer."""
        raise NotImplementedError

    def train(self, round: int) -> float | None:
        """One round of training. Returns its mean loss; None without training. Keep it short: questions wait for it."""
        return None

    def save(self, folder: Path) -> None:
        """Write the state to `folder`, which is new and empty."""

    def load(self, folder: Path) -> None:
        """Restore the state of `save`, perhaps of an earlier version of the class."""


class RespondingMiner:
    """The miner of a host that answers by a responder. silent and copy are done here; others are the responder's."""

    engine = None

    def __init__(
        self, hotkey: str, profile: MinerProfile, cfg: MinersJob, text: Text, path: str, *, device: str = "cpu"
    ) -> None:
        self.hotkey, self.profile = hotkey, profile
        self._responder: Responder = load_class(path, "mechanism.responder")(
            Setup(hotkey, profile, cfg.mechanism.options, cfg.seed, text, device)
        )
        self._lock = FifoLock()

    def train(self, round: int) -> float | None:
        with self._lock:
            return self._responder.train(round)

    def training_batches(self, round: int) -> list[np.ndarray]:
        """None: the responder reads its own data."""
        return []

    def answer(self, task: Task, observed: Response | None = None) -> Response | None:
        """The responder's answer. observed: another miner's answer, for a copying miner."""
        if task.payload is None or self.profile.behaviour == "silent":
            return None
        if self.profile.behaviour == "copy":
            return None if observed is None else Response(task.task_id, self.hotkey, payload=observed.payload)
        started = time.perf_counter()
        with self._lock:
            payload = self._responder.answer(task)
        if payload is None:
            return None
        return Response(task.task_id, self.hotkey, elapsed_s=time.perf_counter() - started, payload=payload)

    def export(self, original: Any = None, committed: Mapping[str, str] | None = None) -> str | None:
        """None: it submits no files."""
        return None

    def cached_decoder(self) -> None:
        """None: it continues no prompts."""

    def heldout_loss(self, questions: Any) -> float | None:
        """None: it predicts no tokens."""
        return None

    def checkpoint(self, folder: Path) -> None:
        """Write the responder's state to `folder`, which appears at once."""
        with self._lock, disk.new_folder(folder) as new:
            self._responder.save(new)

    def restore(self, folder: Path) -> None:
        with self._lock:
            self._responder.load(folder)
