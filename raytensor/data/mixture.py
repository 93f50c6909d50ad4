"""Training sequences from prepared folders: an exact shuffle, a mixture by weights, and a position of a few numbers.

In: prepared folders, weights, a seed. Out: int32 [B, T + 1]: the rows that were asked for of the next batch. A sequence
is T + 1 tokens of one shard; the next begins at its last token, and what is left at the end of a shard (less than
T + 1 tokens) is not read. Row k of the training takes the next sequence of one folder; each folder is read in a new
order in each pass. The batch is a function of settings, seed and position, whatever the number of ranks; a rank reads
only its own rows.
Bounds: memory and start-up grow with the number of shards, not of tokens. Knows nothing of models and ranks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raytensor.config import Data
from raytensor.data import assign, shards
from raytensor.data.shards import Manifest, Split
from raytensor.errors import DataError

ROUNDS = 4  # of the Feistel network: as many as a pseudorandom permutation needs (Luby and Rackoff 1988)
DRAWN = 4096  # places of sequences that are computed together
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio


class Permutation:
    """A permutation of 0 .. size - 1 without a table: a Feistel network over the next even number of bits, applied
    again while its result is too large (cycle walking, Black and Rogaway 2002)."""

    def __init__(self, size: int, seed: int) -> None:
        assert size > 0, size
        half = max(1, -(-(size - 1).bit_length() // 2))
        self._size, self._half = np.uint64(size), np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        self._keys = np.random.Generator(np.random.Philox(key=seed)).integers(2**64, size=ROUNDS, dtype=np.uint64)

    def __call__(self, index: np.ndarray) -> np.ndarray:
        """int64 [N]: where the numbers of `index` are sent."""
        found = self._encrypt(index.astype(np.uint64))
        while (large := np.flatnonzero(found >= self._size)).size:
            found[large] = self._encrypt(found[large])
        return found.astype(np.int64)

    def _encrypt(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return left << self._half | right


def _mix(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class Sequences:
    """The training sequences of one folder. `length`: tokens of a sequence, without the one after the last."""

    def __init__(self, folder: Path, manifest: Manifest, *, length: int, seed: int) -> None:
        self._split, self._length, self._seed = Split(folder, manifest, "train"), length, seed
        counts = [max(0, (record.num_tokens - 1) // length) for record in self._split.records]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._begins = self._ends - counts
        self.number = int(self._ends[-1])
        self._order = (-1, Permutation(1, 0))  # pass -> its order
        self._ahead = (0, np.zeros(0, np.int64))  # first number -> places from there on
        if not self.number:
            longest = max(record.num_tokens for record in self._split.records)
            what = (
                f"data.prepared: {folder}: no shard has the {length + 1} tokens of a sequence (the longest: {longest})"
            )
            raise DataError(f"{what}; fix: a smaller seq_len, or prepare more text with a larger --shard-mib")

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """int32 [N, length + 1]: the sequences that come as `numbers` of the training, counted over all passes."""
        found = np.empty((len(numbers), self._length + 1), np.int32)
        places, tokens, size = self._drawn(numbers), self._split.tokens, self._length + 1
        of = np.searchsorted(self._ends, places, side="right")
        starts = (places - self._begins[of]) * self._length
        for row, (shard, start) in enumerate(zip(of.tolist(), starts.tolist(), strict=True)):
            found[row] = tokens(shard, start, start + size)
        return found

    def _drawn(self, numbers: np.ndarray) -> np.ndarray:
        """`_places` of ascending numbers, drawn for many batches at once: a call on a few costs as much."""
        if not numbers.size:
            return numbers
        first, last = int(numbers[0]), int(numbers[-1])
        start, places = self._ahead
        if not start <= first <= last < start + len(places):
            start, places = first, self._places(np.arange(first, max(last + 1, first + DRAWN), dtype=np.int64))
            self._ahead = start, places
        return places[numbers - start]

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        passes, places = np.divmod(numbers, self.number)
        for number in np.unique(passes):
            if self._order[0] != number:
                seed = assign.seed_of(self._seed, "pass", int(number))
                self._order = (int(number), Permutation(self.number, seed))
            mine = passes == number
            places[mine] = self._order[1](places[mine])
        return places


class Mixture:
    """`batch` gives rows of the next batch; `state` and `restore` save and restore the position, as JSON.

    Raises `ConfigError` for a folder that is not prepared, `DataError` for a damaged one or another tokenizer's.
    """

    def __init__(self, cfg: Data, tokenizer: str, *, seq_len: int, batch_size: int, seed: int) -> None:
        """tokenizer: the digest of the training's."""
        found = open_folders(cfg, tokenizer)
        seeds = [assign.seed_of(seed, "sequences", place) for place in range(len(found))]
        self._sources = [
            Sequences(folder, manifest, length=seq_len, seed=one)
            for (folder, manifest), one in zip(found.items(), seeds, strict=True)
        ]
        weights = np.array(cfg.weights or [source.number for source in self._sources], np.float64)
        # The last share is exactly the whole.
        self._shares = np.append(np.cumsum(weights / weights.sum())[:-1], 1.0)
        self._corpus = fingerprint(cfg, weights.tolist(), seq_len)
        self._batch_size, self._row = batch_size, 0
        self._taken = np.zeros(len(found), np.int64)  # sequences of each folder

    @property
    def epoch(self) -> int:
        """Passes that are complete over the folder that was read most often."""
        return max(int(taken) // one.number for taken, one in zip(self._taken, self._sources, strict=True))

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """int32 [len(rows), T + 1]: these rows (0 .. batch_size - 1) of the next batch; the others are not read."""
        number = np.uint64(self._row) + np.arange(self._batch_size, dtype=np.uint64)
        # Multiples of the golden ratio spread evenly: after k rows each share is met within O(log k) rows.
        draws = (number * np.uint64(GOLDEN)) / 2.0**64
        chosen = np.minimum(np.searchsorted(self._shares, draws, side="right"), len(self._shares) - 1)
        found = None
        for source, sequences in enumerate(self._sources):
            mine = chosen == source
            numbers = self._taken[source] + np.cumsum(mine) - 1
            places = np.flatnonzero(mine[rows])
            part = sequences.rows(numbers[rows[places]])
            found = np.empty((len(rows), part.shape[1]), np.int32) if found is None else found
            found[places] = part
            self._taken[source] += int(mine.sum())
        self._row += self._batch_size
        assert found is not None
        return found

    def state(self) -> dict[str, Any]:
        """The position before the next batch."""
        return {"row": self._row, "taken": self._taken.tolist(), "corpus": self._corpus}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume at a saved position. Raises `DataError` when it was taken from another corpus."""
        if state["corpus"] != self._corpus or "row" not in state:
            cause = "the saved position belongs to another corpus (its folders, weights or seq_len changed)"
            raise DataError(f"{cause}\n  fix: use the same data, or start a new run")
        self._row, self._taken = int(state["row"]), np.array(state["taken"], np.int64)


def open_folders(cfg: Data, tokenizer: str | None = None) -> dict[Path, Manifest]:
    """Folder -> manifest of `data.prepared`. `tokenizer`: the digest that all must have; None: that of the first.

    Raises `ConfigError` for a folder that is not prepared, `DataError` for a damaged one or another tokenizer's.
    """
    found = {Path(name): shards.read_manifest(Path(name)) for name in cfg.prepared}
    for folder, manifest in found.items():
        expected = tokenizer or next(iter(found.values())).tokenizer
        if manifest.tokenizer != expected:
            what = f"data.prepared: {folder / shards.MANIFEST}: its tokens are of the tokenizer {manifest.tokenizer}"
            fix = f"leave out data.tokenizer, or prepare it again with data.tokenizer={cfg.tokenizer}"
            raise DataError(f"{what}, not of {expected}; fix: {fix}")
    return found


def refuse_unusable(cfg: Data) -> None:
    """Raises the errors of `open_folders`, and `DataError` for a shard that is missing or cut off."""
    for folder, manifest in open_folders(cfg).items():
        for part in ("train", "heldout"):
            Split(folder, manifest, part).refuse_cut()


def heldout_documents(cfg: Data, tokenizer: str, num_tokens: int) -> Iterator[np.ndarray]:
    """Held-out documents of all folders, with their ends: of each, its first `num_tokens` tokens at least."""
    for folder, manifest in open_folders(cfg, tokenizer).items():
        split, read = Split(folder, manifest, "heldout"), 0
        for ids in (ids for shard in range(len(split.records)) for ids in split.documents(shard)):
            yield ids
            read += ids.size
            if read >= num_tokens:
                break


def fingerprint(cfg: Data, *more: Any) -> str:
    """A hash of the folders' contents, in order, and of `more`."""
    found = [manifest.digest() for manifest in open_folders(cfg).values()]
    return shards.digest_of([*found, *more])
