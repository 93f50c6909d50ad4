"""Next-token predictions for growing sequences, with a cache of keys and values: one position per new token.

In: a causal language model of transformers, the windows that the sequences show now. Out: the likeliest next tokens of
each. A window whose text is that of the call before and one token more costs one position; any other is computed whole.
The predictions equal those of a full forward pass up to the order of float32 sums.

The cache is a `Cache` of transformers whose layers hold one row per sequence, of any length. Bounds: as many rows as a
call has windows, with as many positions as the longest window has, each rounded up to a power of two; see
`bytes_per_token`. Knows nothing of sampling, prompts or training.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from raytensor.training.causal import attention_mask, next_log_probs

PREFILL_TOKENS = 4096  # positions of one forward pass over whole windows
# The argument of a model's forward that takes a cache: "cache" since transformers 5.24.
CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
Source = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a sequence that the model sees.

    name   of the sequence, unique among those of a call.
    start  position of its first token in the sequence.
    tokens int64 [T].
    """

    name: str
    start: int
    tokens: np.ndarray


class _Step:
    """Which rows and positions of the cache the forward pass under way writes. `fresh`: it reads no others."""

    def __init__(self) -> None:
        self.rows = self.positions = torch.zeros(0, dtype=torch.int64)
        self.num_rows = self.num_positions = 0  # that the cache must have room for
        self.fresh = True


class _RowLayer(CacheLayerMixin):
    """Keys and values [rows, heads, positions, width] of one layer."""

    def __init__(self, step: _Step) -> None:
        super().__init__()
        self._step = step
        self.keys: Any = None
        self.values: Any = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = self._grown(self.keys, key_states), self._grown(self.values, value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        step = self._step
        has_room = self.is_initialized and step.num_rows <= len(self.keys)
        if not has_room or step.num_positions > self.keys.shape[2]:
            self.lazy_initialization(key_states, value_states)
        self.keys[step.rows[:, None], :, step.positions] = key_states.transpose(1, 2)
        self.values[step.rows[:, None], :, step.positions] = value_states.transpose(1, 2)
        if step.fresh:
            return key_states, value_states
        shown = slice(step.num_rows), slice(None), slice(step.num_positions)
        return self.keys[shown], self.values[shown]

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        self.keys[target], self.values[target] = self.keys[source], self.values[source]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1

    def _grown(self, old: Tensor | None, like: Tensor) -> Tensor:
        """Room for the step, with what `old` holds. Each size is a power of two, so that it seldom grows."""
        rows, positions = (1 << (size - 1).bit_length() for size in (self._step.num_rows, self._step.num_positions))
        if old is not None:
            rows, positions = max(rows, len(old)), max(positions, old.shape[2])
        new = like.new_zeros(rows, like.shape[1], positions, like.shape[3])
        if old is not None:
            new[: len(old), :, : old.shape[2]] = old
        return new


class CachedDecoder:
    """model       of transformers, used by nobody else. It gets its weights from `source` before the first prediction.
    vocab_size  tokens that may be predicted, of those that the model has.
    source      returns the newest weights by the model's names.
    bf16        compute products in bfloat16.
    """

    def __init__(
        self, model: nn.Module, vocab_size: int, source: Source, *, device: str = "cpu", bf16: bool = False
    ) -> None:
        self._model: Any = model.to(device).eval()
        self._parameters = dict(model.named_parameters())
        self._vocab_size, self._source = vocab_size, source
        self._device, self._bf16 = torch.device(device), bf16
        self._step = _Step()
        num_layers = len(DynamicCache(config=self._model.config).layers)
        self._layers = [_RowLayer(self._step) for _ in range(num_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._held: list[tuple[str, int, int]] = []  # (name, start, tokens that the cache has) by row
        self._stale = True
        self._newer: Mapping[str, Tensor] | None = None

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache as it is now."""
        held = [half for layer in self._layers if layer.is_initialized for half in (layer.keys, layer.values)]
        return sum(half.numel() * half.element_size() for half in held)

    def renew(self, *, at_once: bool) -> None:
        """The model was trained: predict with the newest weights from the next call on. From any thread.

        at_once  read them now, while nobody trains; else before the next prediction.
        """
        if at_once:
            self._newer = self._source()
        self._stale = True

    def clear(self) -> None:
        """Forget all sequences and release their memory."""
        self._held.clear()
        for layer in self._layers:
            layer.keys = layer.values = None
            layer.is_initialized = False

    @torch.inference_mode()
    def predict(self, windows: Sequence[Window], top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `top_k` likeliest next tokens of each window, likeliest first: ids int32 [B, K], probs float32 [B, K].

        Sequences that are not among `windows` are forgotten.
        """
        self._load_newest()
        places = {window.name: place for place, window in enumerate(windows)}
        self._drop({name for name, start, length in self._held if not _continues(windows, places, name, start, length)})
        old = [windows[places[name]] for name, _, _ in self._held]
        held = {window.name for window in old}
        ids = np.zeros((len(windows), top_k), np.int32)
        probs = np.zeros((len(windows), top_k), np.float32)

        def found(group: list[Window], log_probs: Tensor) -> None:
            best, at = log_probs[:, : self._vocab_size].topk(top_k), [places[window.name] for window in group]
            ids[at], probs[at] = best.indices.cpu().numpy(), best.values.exp().cpu().numpy()

        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            if old:
                found(old, self._extend(old))
            for new in _groups([window for window in windows if window.name not in held]):
                found(new, self._prefill(new))
        return ids, probs

    def _extend(self, windows: list[Window]) -> Tensor:
        """The last token of each window, which are those of the rows in their order."""
        lengths = np.array([len(window.tokens) for window in windows])
        positions = self._tensor(lengths - 1)[:, None]
        self._write(0, positions, int(lengths.max()), fresh=False)
        seen = torch.arange(int(lengths.max()), device=self._device) <= positions  # [B, T]
        tokens = self._tensor(np.array([window.tokens[-1] for window in windows]))[:, None]
        more = {"position_ids": positions, "attention_mask": attention_mask(seen[:, None], self._model)}
        found = next_log_probs(self._model, tokens, torch.zeros_like(positions[:, 0]), **more, **self._caching)
        self._held = [(window.name, window.start, len(window.tokens)) for window in windows]
        return found

    def _prefill(self, windows: list[Window]) -> Tensor:
        """Whole windows, in new rows. Padding is on the right, where causal attention does not see it."""
        lengths = np.array([len(window.tokens) for window in windows])
        tokens = np.zeros((len(windows), int(lengths.max())), np.int64)
        for row, window in zip(tokens, windows, strict=True):
            row[: len(window.tokens)] = window.tokens
        positions = torch.arange(tokens.shape[1], device=self._device)[None].expand(len(windows), -1)
        self._write(len(self._held), positions, tokens.shape[1], fresh=True)
        more = {"position_ids": positions, **self._caching}
        found = next_log_probs(self._model, self._tensor(tokens), self._tensor(lengths - 1), **more)
        self._held += [(window.name, window.start, len(window.tokens)) for window in windows]
        return found

    @property
    def _caching(self) -> dict[str, Any]:
        return {CACHE: self._cache, "use_cache": True}

    def _write(self, first_row: int, positions: Tensor, num_positions: int, *, fresh: bool) -> None:
        step = self._step
        step.rows = torch.arange(first_row, first_row + len(positions), device=self._device)
        step.positions, step.fresh = positions, fresh
        step.num_rows, step.num_positions = first_row + len(positions), num_positions

    def _drop(self, names: set[str]) -> None:
        """Remove rows; the last one takes the place of each."""
        for row in reversed(range(len(self._held))):
            if self._held[row][0] in names:
                last = self._held.pop()
                if row < len(self._held):
                    self._held[row] = last
                    for layer in self._layers:
                        layer.move(len(self._held), row)

    def _load_newest(self) -> None:
        if not self._stale:
            return
        self._stale = False  # before the weights are read: they may become stale again meanwhile
        newer, self._newer = self._newer or self._source(), None
        self._held.clear()  # keys and values are of the weights that made them
        for name, value in newer.items():
            self._parameters[name].copy_(value)

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._device)


def is_cacheable(model: Any) -> bool:
    """Whether all layers of a model are plain attention, whose keys and values this cache can hold."""
    if getattr(model, "_is_stateful", False):
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def bytes_per_token(model: Any, *, bf16: bool = False) -> int:
    """Memory of one position of one sequence: a key and a value in each layer."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * (2 if bf16 else 4)


def _continues(windows: Sequence[Window], places: Mapping[str, int], name: str, start: int, length: int) -> bool:
    """Whether a window is what a row holds, and one token more."""
    window = windows[places[name]] if name in places else None
    return window is not None and (window.start, len(window.tokens)) == (start, length + 1)


def _groups(windows: list[Window]) -> list[list[Window]]:
    """Windows of about one length together, at most `PREFILL_TOKENS` positions in a group of several."""
    groups: list[list[Window]] = []
    for window in sorted(windows, key=lambda one: len(one.tokens)):
        if groups and (len(groups[-1]) + 1) * len(window.tokens) <= PREFILL_TOKENS:
            groups[-1].append(window)
        else:
            groups.append([window])
    return groups
