"""Exports the file that a miner submits where a mechanism asks for files: one safetensors file per version.

In: the model's weights, or the commitments of others on the chain. Out: digests to commit to, and the files of those
digests. Pure except for the store: equal weights give the same file, bit for bit, on every host. The miner's behaviour
decides what is in the file; a copier takes the one that its victim has committed to on the chain. Knows nothing of Ray
or the chain.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raytensor.config import MinerProfile, MinersJob
from raytensor.data.text import Text
from raytensor.data.tokenizer import vocab_size_of
from raytensor.errors import ConfigError
from raytensor.miners.behaviours import ACTIONS, FileWork
from raytensor.miners.files import FileStore
from raytensor.miners.model import spec
from raytensor.training import models, single_file
from raytensor.types import Submission, Task

Weights = Callable[[], Mapping[str, Tensor]]
Original = tuple[str, str]  # a hotkey and the digest that it has committed to


class SubmissionExporter:
    """The files of one miner. folder: of the store."""

    def __init__(self, hotkey: str, profile: MinerProfile, text: Text, cfg: MinersJob, folder: Path) -> None:
        self._hotkey, self._action, self._seed = hotkey, ACTIONS[profile.behaviour], cfg.seed
        self._text, self._seq_len = text, cfg.miners.seq_len
        self._store = FileStore(folder)
        model: Any = models.build(spec(profile, text.vocab_size, self._seq_len, 0), meta=True)
        self._config = model.config

    def export(
        self, weights: Weights | None, original: Original | None, committed: Mapping[str, str] | None
    ) -> str | None:
        """Write the newest version. Returns the digest to commit to; None when there is nothing to submit.

        weights    of the miner's own model; None when it has none.
        original   the file to copy.
        committed  digests by hotkey, as the chain has them; None when they are unknown: then no old file is removed.
        """
        data = self._file(weights, original)
        if data is None:
            return None
        digest = self._store.put(self._hotkey, data)
        if committed is not None:
            self._store.prune(self._hotkey, committed.get(self._hotkey))
        return digest

    def answer(self, task: Task) -> Submission | None:
        """The file that a task asks for; None when the store does not have it."""
        path = self._store.find(self._hotkey, task.digest)
        return None if path is None else Submission(task.task_id, self._hotkey, task.digest, path=str(path))

    def _file(self, weights: Weights | None, original: Original | None) -> bytes | None:
        def own() -> bytes | None:
            return single_file.pack_weights(self._config, weights()) if weights is not None else None

        path = self._store.find(*original) if original is not None else None
        return self._action.file(FileWork(self._seed, self._hotkey, self._text, self._seq_len, path, own))


def refuse_unlike(cfg: MinersJob) -> None:
    """Check that the models can be submitted, before anything starts. Raises `ConfigError`."""
    vocab_size = vocab_size_of(cfg.data.tokenizer, cfg.data.vocab_size)
    for number, profile in enumerate(cfg.miners.profiles):
        model: Any = models.build(spec(profile, vocab_size, cfg.miners.seq_len, 0), meta=True)
        rule, count, where = cfg.mechanism.model_eval, models.num_parameters(model), f"miners.profiles[{number}]"
        if count > rule.max_parameters or 4 * count + single_file.MAX_HEADER_BYTES > rule.max_bytes:
            bounds = f"mechanism.model_eval.max_parameters={rule.max_parameters} and read at most"
            fix = "a smaller model, or larger bounds (4 bytes a parameter)"
            what = f"{count} parameters; scorers build at most {bounds} max_bytes={rule.max_bytes}"
            raise ConfigError(f"{where}: {what}\n  fix: {fix}")
        if why := single_file.unlike(model.config):
            fix = "a size (1M, 5M, ...) or hidden, layers and heads"
            raise ConfigError(f"{where}.model={profile.model!r} can't be submitted as a file: {why}\n  fix: {fix}")
