"""An engine owns a model and its optimizer: it trains, predicts, saves and loads. One small interface, several makes.

In: batches of token ids, contexts. Out: training losses, next-token log-probabilities, checkpoint folders.
Knows nothing of hotkeys, rounds, text or Ray. Everything is a pure function of the model's initial state and of the
batches it was given: no dropout, no hidden random state, and a prediction depends on its own rows only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from raytensor.errors import DataError
from raytensor.training.folders import atomic_folder

# Rows of one forward. Fixed, so that the bits of an answer never depend on what else is asked at the time.
CHUNK = 128


class Engine(Protocol):
    steps: int  # optimizer steps taken so far

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        """One optimizer step per batch, integers [B, T + 1]; returns the mean loss in nats per token."""

    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float32 [B, V]: log-probabilities of the token after each context (int32 [B, T], right-padded)."""

    def save(self, folder: Path) -> None:
        """Write the whole state to `folder`, at once or not at all."""

    def load(self, folder: Path) -> None:
        """Take over a saved state, bit for bit. Raises `DataError` when it is missing, damaged or of another model."""


class PlainEngine:
    """One process, one device, plain torch: AdamW with linear warm-up, then a constant rate; gradients clipped.

    model         a causal language model of transformers: `model.model` gives hidden states, `model.lm_head` logits.
    lr            learning rate after `warmup_steps` steps.
    clip          largest norm of a step's gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        *,
        warmup_steps: int = 10,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        clip: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.model = model.to(device)
        self.device = device
        self.steps = 0
        self._lr = lr
        self._warmup_steps = warmup_steps
        self._clip = clip
        # Decay only what multiplies: matrices, not the norms' gains.
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        gains = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": gains, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)

    def train_steps(self, batches: Iterable[np.ndarray]) -> float:
        self.model.train()
        losses: list[float] = []
        for batch in batches:
            tokens = torch.from_numpy(batch.astype(np.int64)).to(self.device)
            logits = self._logits(self._hidden(tokens[:, :-1]))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
            self.steps += 1
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr * min(1.0, self.steps / self._warmup_steps)
            self._optimizer.step()
            losses.append(loss.item())
        return float(np.mean(losses)) if losses else float("nan")

    @torch.inference_mode()
    def log_probs(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        self.model.eval()
        parts = []
        for start in range(0, len(tokens), CHUNK):
            rows = torch.from_numpy(tokens[start : start + CHUNK].astype(np.int64)).to(self.device)
            last = torch.from_numpy(lengths[start : start + CHUNK].astype(np.int64)).to(self.device) - 1
            # Attention is causal and the padding is on the right: it can't reach a real token.
            hidden = self._hidden(rows)[torch.arange(len(rows), device=self.device), last]
            parts.append(torch.log_softmax(self._logits(hidden).float(), dim=-1).cpu().numpy())
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        moments: dict[str, torch.Tensor] = {}
        for index, state in self._optimizer.state_dict()["state"].items():
            moments.update({f"{index}.{name}": value.contiguous() for name, value in state.items()})
        with atomic_folder(folder) as new:
            save_model(self.model, str(new / "model.safetensors"))
            save_file(moments, new / "optimizer.safetensors")
            (new / "engine.json").write_text(json.dumps({"steps": self.steps}))

    def load(self, folder: Path) -> None:
        try:
            load_model(self.model, str(folder / "model.safetensors"), device=self.device)
            moments = load_file(folder / "optimizer.safetensors", device=self.device)
            steps = int(json.loads((folder / "engine.json").read_text())["steps"])
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise DataError(f"the checkpoint {folder} can't be loaded: {str(error).splitlines()[0]}") from error
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in moments.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        known = self._optimizer.state_dict()
        self._optimizer.load_state_dict({"state": state, "param_groups": known["param_groups"]})
        self.steps = steps

    def _hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.model(input_ids=tokens).last_hidden_state

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(hidden)
