"""A miner's part in collaborative training: local steps on its assigned text, and the update that it submits.

In: tasks of kind "update", the folder of the shared model. Out: `Submission`s, and a checkpoint of the miner's own
state: the optimizer's moments and the residual of updates that were not sent yet. The shared model is read from the
folder at every window, so a miner that joins late is up to date after one read. A pure function of (shared model,
task, own state). Knows nothing of scores or of other miners.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load, save

from raytensor import disk
from raytensor.config import Collab, MinerProfile, MinersJob
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.errors import DamagedCheckpoint, DataError
from raytensor.mechanisms.collab.codec import Codec, Feedback
from raytensor.mechanisms.collab.store import Store
from raytensor.miners.behaviours import ACTIONS, UpdateWork
from raytensor.miners.miner import QuestionSet
from raytensor.miners.model import top_tokens
from raytensor.miners.submission_export import Original
from raytensor.training import engine
from raytensor.training.models import ModelSpec, build
from raytensor.training.recipe import Recipe
from raytensor.training.single_file import digest
from raytensor.types import Submission, Task


class Collaborator:
    """The training of one identity.

    behaviour   a row of `config.behaviours.BEHAVIOURS`.
    other_text  draws [rows, T + 1] token ids that were not assigned to it; for wrong_data only.
    """

    def __init__(
        self,
        hotkey: str,
        behaviour: str,
        rule: Collab,
        recipe: Recipe,
        *,
        device: str = "cpu",
        other_text: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        assert rule.folder is not None
        self.hotkey, self._action, self._copies = hotkey, ACTIONS[behaviour], BEHAVIOURS[behaviour].copies
        self._store = Store(rule.folder)
        self._layout = self._store.layout
        self._engine = engine.PlainEngine(build(ModelSpec(**self._store.model)), device=device, **vars(recipe))
        self._feedback = Feedback(Codec(rule.k), self._layout.size, rule.feedback)
        self._other_text = other_text
        self._done: tuple[int, bytes] | None = None  # window and payload, the same for every validator
        self.loss = float("nan")  # mean training loss of the newest window, nats per token

    def work(self, task: Task, observed: Submission | None = None) -> Submission | None:
        """The update of the task's window; None when there is none. observed: what a copying miner copies."""
        if self._copies and observed is None:
            return None
        if self._done is None or self._done[0] != task.round:
            made = self._payload(task, observed)
            if made is None:
                return None
            self._done = (task.round, made)
        payload = self._done[1]
        return Submission(task.task_id, self.hotkey, digest(payload), payload=payload)

    def shared(self) -> engine.Engine:
        """An engine with the newest shared model, for measuring it."""
        self._set_parameters(self._store.before(self._store.newest())[0])
        return self._engine

    def save(self, folder: Path) -> None:
        """Write the miner's own state to `folder`."""
        done = np.frombuffer(self._done[1] if self._done else b"", np.uint8)
        window = np.array([self._done[0] if self._done else -1], np.int64)
        own = save({"residual": self._feedback.residual, "done": done, "window": window})
        self._engine.save(folder, {"collaborator": digest(own)})
        disk.write_bytes(folder / "collaborator.safetensors", own)

    def load(self, folder: Path) -> None:
        """Restore the state of `save`, bit for bit. Raises as `Engine.load`."""
        position = self._engine.load(folder)
        try:
            own = (folder / "collaborator.safetensors").read_bytes()
        except OSError as error:
            raise DamagedCheckpoint(f"the checkpoint {folder} can't be loaded: {error}") from error
        if digest(own) != position.get("collaborator"):
            raise DamagedCheckpoint(f"the checkpoint {folder} can't be loaded: collaborator.safetensors is damaged")
        found, size = load(own), self._layout.size
        residual, window, done = found["residual"], int(found["window"][0]), found["done"].tobytes()
        if residual.shape != (size,):
            raise DataError(f"the checkpoint {folder} is of another model: {residual.shape} values, not {size}")
        self._feedback.residual = residual
        self._done = (window, done) if window >= 0 else None

    def _payload(self, task: Task, observed: Submission | None) -> bytes | None:
        """The behaviour's payload of the task's window."""
        previous = self._done[1] if self._done else b""
        feedback, train, other = self._feedback, partial(self._train, task), partial(self._other, task)
        about = self.hotkey, task.round, self._layout.size, previous, observed
        return self._action.update(UpdateWork(*about, feedback.codec, feedback.send, train, other))

    def _other(self, task: Task) -> np.ndarray:
        assert self._other_text is not None
        return self._other_text(task.round, len(task.tokens))

    def _train(self, task: Task, tokens: np.ndarray | None = None, *, share: int = 1) -> np.ndarray:
        """What the local steps subtracted from the shared model: float32 [size].

        tokens  in the place of the task's. share: do a 1/share of the steps.
        """
        tokens = task.tokens if tokens is None else tokens
        batches = tokens.reshape(task.horizon, -1, tokens.shape[1])
        batches = batches[: max(1, len(batches) // share)]
        before, _ = self._store.before(task.round)
        self._set_parameters(before)
        self.loss = self._engine.train_steps(batches)
        return before - self._layout.flatten({name: p.detach().cpu().numpy() for name, p in self._parameters()})

    def _set_parameters(self, vector: np.ndarray) -> None:
        """Set the parameters to float32 [size]; the optimizer's moments stay."""
        arrays = self._layout.unflatten(vector)
        with torch.no_grad():
            for name, parameter in self._parameters():
                parameter.copy_(torch.from_numpy(arrays[name]))

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return list(self._engine.model.named_parameters())


class CollaboratingMiner:
    """A `Collaborator` in the place of a `Miner`: it trains when it is asked, not in the round's training.

    Its held-out loss is that of the newest shared model.
    """

    engine = None

    def __init__(self, hotkey: str, profile: MinerProfile, cfg: MinersJob, text: Text, *, device: str = "cpu") -> None:
        rule, train = cfg.mechanism.collab, text.train

        def other(window: int, rows: int) -> np.ndarray:
            draw = assign.generator(cfg.seed, "other text", hotkey, window)
            starts = draw.integers(0, len(train) - rule.seq_len - 1, rows)
            return train[starts[:, None] + np.arange(rule.seq_len + 1)]

        self.hotkey, self.profile, self._vocab_size = hotkey, profile, text.vocab_size
        recipe = Recipe.of(profile)
        self._own = Collaborator(hotkey, profile.behaviour, rule, recipe, device=device, other_text=other)

    def train(self, round: int) -> float | None:
        """Nothing: it trains when it is asked."""
        return None

    def training_batches(self, round: int) -> list[np.ndarray]:
        """None: its text comes with the tasks."""
        return []

    def export(self, original: Original | None = None, committed: Mapping[str, str] | None = None) -> str | None:
        """Nothing: it submits updates, not files."""
        return None

    def answer(self, task: Task, observed: Submission | None = None) -> Submission | None:
        return self._own.work(task, observed)

    def cached_decoder(self) -> None:
        """None: it answers no prompts."""

    def heldout_loss(self, questions: QuestionSet) -> float | None:
        if self.profile.behaviour == "silent":
            return None
        log_probs = self._own.shared().log_probs(questions.tokens, questions.lengths)
        return questions.loss(*top_tokens(log_probs, questions.top_k), self._vocab_size)

    def checkpoint(self, folder: Path) -> None:
        self._own.save(folder)

    def restore(self, folder: Path) -> None:
        self._own.load(folder)
