"""Evaluates submitted checkpoints: losses by sequence, and a fingerprint. Runs in scorers, which hold no key.

In: a `Submission` of anyone, sequences. Out: float64 arrays, or `DataError` for a file that breaks its bounds.
Every forward pass has the same number of rows, so that a sequence's loss does not depend, to the bit, on what is asked
beside it. The models last used stay loaded: a king is read once. Knows nothing of duels and weights.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from raytensor import config
from raytensor.errors import DataError
from raytensor.training import devices, single_file
from raytensor.types import Submission

KEPT = 3  # models that stay loaded


class LlamaForward:
    """Reads checkpoints as `training.single_file` writes them.

    rule        the `model_eval` section: bounds and rows of a forward pass.
    vocab_size  of the text.
    """

    def __init__(self, rule: config.ModelEval, vocab_size: int) -> None:
        self._rule, self._vocab_size = rule, vocab_size
        self._device = devices.visible()
        self._models: OrderedDict[str, nn.Module] = OrderedDict()

    def evaluate(
        self, submission: Submission, sequences: np.ndarray, probes: np.ndarray, probe_tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(losses float64 [N], fingerprint float64 [P * K]) of one checkpoint.

        sequences     int32 [N, T]: the loss of each is the mean of -ln p of its tokens but the first, nats per token.
        probes        int32 [P, T]: the fingerprint is ln p, after all of a probe but its last token, of
        probe_tokens  int32 [P, K].
        Raises `DataError` when the file breaks a bound.
        """
        model = self._model(submission)
        losses = self._by_rows(model, sequences, _losses)
        last = self._by_rows(model, probes, _last_log_probs)
        found = np.take_along_axis(last, probe_tokens.astype(np.int64), axis=1)
        return losses, found.ravel()

    def _by_rows(self, model: nn.Module, tokens: np.ndarray, read) -> np.ndarray:
        rows, found = self._rule.batch_size, []
        with torch.inference_mode():
            for first in range(0, len(tokens), rows):
                part = tokens[first : first + rows]
                padded = np.concatenate([part, np.zeros((rows - len(part), tokens.shape[1]), part.dtype)])
                batch = torch.from_numpy(padded.astype(np.int64)).to(self._device)
                found.append(read(model(input_ids=batch).logits, batch)[: len(part)].double().cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, self._vocab_size))

    def _model(self, submission: Submission) -> nn.Module:
        if submission.digest in self._models:
            self._models.move_to_end(submission.digest)
            return self._models[submission.digest]
        bounds = {"max_bytes": self._rule.max_bytes, "max_parameters": self._rule.max_parameters}
        model = single_file.unpack(self._bytes(submission), vocab_size=self._vocab_size, **bounds)
        longest = int(cast(Any, model).config.max_position_embeddings)
        if longest < self._rule.seq_len:
            raise DataError(f"the model reads {longest} tokens; {self._rule.seq_len} are needed")
        model = model.float() if self._device == "cpu" else model.to(self._device)
        self._models[submission.digest] = model
        while len(self._models) > KEPT:
            self._models.popitem(last=False)
        return model

    def _bytes(self, submission: Submission) -> bytes:
        data = submission.payload
        if submission.path:
            path = Path(submission.path)
            if (size := path.stat().st_size) > self._rule.max_bytes:
                raise DataError(f"the file has {size} bytes; at most {self._rule.max_bytes} are read")
            data = path.read_bytes()
        if single_file.digest(data) != submission.digest:
            raise DataError("the file is not the one that was committed to: its digest differs")
        return data


def _last_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """float32 [B, V]: ln p after all tokens of a row but the last."""
    return functional.log_softmax(logits[:, -2].float(), dim=-1)


def _losses(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """float64 [B]: mean -ln p of each row's tokens but the first."""
    each = functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none")
    return each.double().mean(dim=1)
