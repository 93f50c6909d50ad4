"""What each behaviour of miners does with a question, a file and an update: one class for each row of its table.

In: what an honest miner would do, as functions to call, and what the miner may look at. Out: answers, and bytes of
files and of updates. An action that a class does not have is that of `Honest`. Pure: randomness is drawn by (seed,
hotkey, name). The table is in config/behaviours.py. Knows nothing of Ray, of scores or of how a model trains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open
from safetensors.torch import save

from raytensor.data import assign
from raytensor.data.text import Text
from raytensor.mechanisms.collab.codec import Codec
from raytensor.miners.model import frequency_table, top_tokens
from raytensor.types import Response, Submission

NOISE = 1e-3
LAZY_SHARE = 5  # a lazy miner does a fifth of the steps of an update

Predicted = tuple[np.ndarray, np.ndarray]  # ids int32 [B, K], probs float32 [B, K]


@dataclass(frozen=True)
class Question:
    """A question about tokens. name: seeds what is drawn for it. rows: contexts; top_k: tokens to name for each.

    observed  another miner's answer, for a copier. model: returns the model's answer; None: the miner has no model.
    """

    seed: int
    hotkey: str
    name: str
    rows: int
    top_k: int
    text: Text
    observed: Response | None
    model: Callable[[], Predicted] | None


@dataclass(frozen=True)
class FileWork:
    """The file to submit next. original: a copy's. own: packs the miner's own model; None: it has none."""

    seed: int
    hotkey: str
    text: Text
    seq_len: int
    original: Path | None
    own: Callable[[], bytes | None]


@dataclass(frozen=True)
class UpdateWork:
    """The update of one window of collaborative training. size: parameters of the shared model.

    previous  the payload of the window before; b"" for none. observed: another miner's, for a copier.
    train     does the local steps, on the assigned text or on `other_text()`, or only a share (1/share) of them;
              returns the update, float32 [size].
    send      encodes an update; what it leaves out is sent later.
    """

    hotkey: str
    round: int
    size: int
    previous: bytes
    observed: Submission | None
    codec: Codec
    send: Callable[[np.ndarray], bytes]
    train: Callable[..., np.ndarray]
    other_text: Callable[[], np.ndarray]


class Honest:
    """Does the work. untrained_file: has a model, never trained, where the mechanism asks for files."""

    untrained_file = False

    def answer(self, asked: Question) -> Predicted | None:
        """None: no answer."""
        assert asked.model is not None, "a miner that answers by its model has one"
        return asked.model()

    def file(self, work: FileWork) -> bytes | None:
        """None: nothing to submit."""
        return work.own()

    def update(self, work: UpdateWork) -> bytes | None:
        """None: no update."""
        return work.send(work.train())


class Lazy(Honest):
    def update(self, work: UpdateWork) -> bytes | None:
        return work.send(work.train(share=LAZY_SHARE))


class Copy(Honest):
    def answer(self, asked: Question) -> Predicted | None:
        return None if asked.observed is None else (asked.observed.ids, asked.observed.probs)

    def file(self, work: FileWork) -> bytes | None:
        return None if work.original is None else work.original.read_bytes()

    def update(self, work: UpdateWork) -> bytes | None:
        return None if work.observed is None else work.observed.payload


class CopyNoise(Copy):
    def file(self, work: FileWork) -> bytes | None:
        """The original with noise of a thousandth of each tensor's standard deviation."""
        if work.original is None:
            return None
        draw = assign.generator(work.seed, "copy with noise", work.hotkey, work.original.stem)
        with safe_open(work.original, framework="pt") as file:
            found, metadata = {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata()
        for name, value in found.items():
            noise = torch.from_numpy(draw.standard_normal(tuple(value.shape), np.float32))
            found[name] = (value + NOISE * value.float().std(unbiased=False) * noise).to(value.dtype)
        return save(found, metadata)


class Constant(Honest):
    """The best constant answer: the frequencies of the tokens. Its update is zero."""

    def answer(self, asked: Question) -> Predicted | None:
        ids, probs = top_tokens(asked.text.log_unigram[None], asked.top_k)
        return np.repeat(ids, asked.rows, axis=0), np.repeat(probs, asked.rows, axis=0)

    def file(self, work: FileWork) -> bytes | None:
        return frequency_table(work.text.log_unigram, work.seq_len)

    def update(self, work: UpdateWork) -> bytes | None:
        return work.codec.encode(np.zeros(work.size, np.float32))


class Random(Honest):
    untrained_file = True

    def answer(self, asked: Question) -> Predicted | None:
        if asked.model is not None:
            return asked.model()
        draw = assign.generator(asked.seed, "random answer", asked.hotkey, asked.name)
        keys = draw.random((asked.rows, asked.text.vocab_size), dtype=np.float32)
        ids = np.argpartition(keys, asked.top_k - 1, axis=1)[:, : asked.top_k].astype(np.int32)
        return ids, draw.dirichlet(np.ones(asked.top_k), asked.rows).astype(np.float32)

    def update(self, work: UpdateWork) -> bytes | None:
        """As large as an honest one."""
        return work.send(assign.generator("random update", work.hotkey, work.round).permutation(work.train()))


class Silent(Honest):
    def answer(self, asked: Question) -> Predicted | None:
        return None

    def update(self, work: UpdateWork) -> bytes | None:
        return None


class WrongData(Honest):
    def update(self, work: UpdateWork) -> bytes | None:
        return work.send(work.train(work.other_text()))


class Scaled(Honest):
    """The update times a factor."""

    def __init__(self, factor: float) -> None:
        self._factor = np.float32(factor)

    def update(self, work: UpdateWork) -> bytes | None:
        with np.errstate(over="ignore"):
            return work.codec.encode(work.train() * self._factor)


class Stale(Honest):
    def update(self, work: UpdateWork) -> bytes | None:
        return work.previous or work.send(work.train())


class Nan(Honest):
    def update(self, work: UpdateWork) -> bytes | None:
        fields = safetensors_numpy.load(work.codec.encode(work.train()))
        for name, values in fields.items():
            if values.dtype.kind == "f":
                fields[name] = np.full_like(values, np.nan)
        return safetensors_numpy.save(fields)


ACTIONS: dict[str, Honest] = {
    "honest": Honest(),
    "lazy": Lazy(),
    "copy": Copy(),
    "constant": Constant(),
    "random": Random(),
    "silent": Silent(),
    "wrong_data": WrongData(),
    "sign_flip": Scaled(-10.0),
    "stale": Stale(),
    "huge": Scaled(1e6),
    "nan": Nan(),
    "copy_noise": CopyNoise(),
}
