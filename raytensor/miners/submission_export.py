"""Exports the file that a miner submits where a mechanism asks for files: one safetensors file per version.

In: the model's weights, or the commitments of others on the chain. Out: digests to commit to, and the files of those
digests. Pure except for the store: equal weights give the same file, bit for bit, on every host.

    honest, lazy  its own model       random    a model that was never trained
    copy          another's file      constant  the frequencies of the tokens, as the smallest Llama that has them
    copy_noise    another's weights with noise of a thousandth of each tensor's standard deviation
    silent        nothing

A copier takes the file that its victim has committed to on the chain. Knows nothing of Ray or the chain.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import LlamaForCausalLM

from raytensor.config import MinerProfile, MinersJob
from raytensor.config.behaviours import BEHAVIOURS
from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.data.tokenizer import vocab_size_of
from raytensor.errors import ConfigError
from raytensor.miners.files import FileStore
from raytensor.miners.model import spec
from raytensor.training import models, single_file
from raytensor.types import Submission, Task

NOISE = 1e-3

Weights = Callable[[], Mapping[str, Tensor]]
Original = tuple[str, str]  # a hotkey and the digest that it has committed to


class SubmissionExporter:
    """The files of one miner. folder: of the store."""

    def __init__(self, hotkey: str, profile: MinerProfile, text: Text, cfg: MinersJob, folder: Path) -> None:
        self._hotkey, self._behaviour, self._seed = hotkey, profile.behaviour, cfg.seed
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
        if BEHAVIOURS[self._behaviour].copies:
            path = self._store.find(*original) if original is not None else None
            if path is None:
                return None
            return path.read_bytes() if self._behaviour == "copy" else self._with_noise(path)
        if self._behaviour == "constant":
            return table(self._text.log_unigram, self._seq_len)
        return single_file.pack_weights(self._config, weights()) if weights is not None else None

    def _with_noise(self, path: Path) -> bytes:
        draw = assign.generator(self._seed, "copy with noise", self._hotkey, path.stem)
        with safe_open(path, framework="pt") as file:
            found, metadata = {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata()
        for name, value in found.items():
            noise = torch.from_numpy(draw.standard_normal(tuple(value.shape), np.float32))
            found[name] = (value + NOISE * value.float().std(unbiased=False) * noise).to(value.dtype)
        return save(found, metadata)


def table(log_unigram: np.ndarray, seq_len: int) -> bytes:
    """A Llama that always answers with the frequencies `log_unigram` (float32 [V]), as a file.

    All tokens have the same embedding and the layers add nothing. The product of the norm's result (1, 1) with each
    row of the output embedding is the token's log frequency.
    """
    shape = dict(zip(single_file.SHAPE, (len(log_unigram), 2, 1, 1, 1, 1, seq_len)))
    config = single_file.llama(shape | {"tie_word_embeddings": False})
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    weights = {name: torch.zeros(shape) if "_proj" in name else torch.ones(shape) for name, shape in shapes.items()}
    weights["lm_head.weight"] = torch.from_numpy(log_unigram.astype(np.float32))[:, None].repeat(1, 2) / 2
    return single_file.pack_weights(config, weights)


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
