"""Which text each miner trains on and is asked about: pure functions of a seed and names, equal in every process.

In: the seed of the run, a round, a hotkey or a validator, the length of a token array. Out: positions in it.
Each draw has its own Philox generator (Salmon et al. 2011), keyed by a hash of its purpose, so that no draw depends on
the draws before it. Knows nothing of models and scores.
"""

import hashlib

import numpy as np


def generator(seed: int | str, *names: object) -> np.random.Generator:
    """The random generator of (seed, names): equal names give equal draws, other names independent ones."""
    words = "\0".join([str(seed), *(f"{len(str(name))}:{name}" for name in names)])
    key = np.frombuffer(hashlib.blake2b(words.encode(), digest_size=16).digest(), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def seed_of(seed: int, *names: object) -> int:
    """A 63-bit seed for (seed, names), for libraries that take a number."""
    return int(generator(seed, *names).integers(2**63))


def training_starts(seed: int, round: int, hotkey: str, num_windows: int, window: int, num_tokens: int) -> np.ndarray:
    """int64 [num_windows]: where the training windows of (round, hotkey) start; each spans `window` tokens."""
    assert 0 < window <= num_tokens, (window, num_tokens)
    return generator(seed, "train", round, hotkey).integers(0, num_tokens - window + 1, num_windows)


def question_starts(
    seed: int, round: int, validator: str, num_windows: int, window: int, num_tokens: int
) -> np.ndarray:
    """int64 [num_windows]: starts of the held-out windows that `validator` asks all miners about in `round`."""
    assert 0 < window <= num_tokens, (window, num_tokens)
    return generator(seed, "ask", round, validator).integers(0, num_tokens - window + 1, num_windows)


def question_cuts(
    seed: int, round: int, validator: str, hotkey: str, num_windows: int, shortest: int, longest: int
) -> np.ndarray:
    """int32 [num_windows] in shortest .. longest: how many tokens of each window `hotkey` sees; the next is withheld.

    The cuts differ per miner, so the answer of one miner about a window does not fit the question of another.
    """
    assert 1 <= shortest <= longest, (shortest, longest)
    return generator(seed, "cut", round, validator, hotkey).integers(shortest, longest + 1, num_windows, dtype=np.int32)


def cut_windows(
    tokens: np.ndarray,
    starts: np.ndarray,
    cuts: np.ndarray,
    longest: int,
    *,
    horizon: int = 1,
    holes: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and what follows them.

    tokens [N], starts int64 [B], cuts int32 [B] (1 .. longest; starts + cuts + horizon <= N, one less with holes).
    holes   int [B]: index, 0 .. cuts, of a token of each window that is left out; None leaves out none.
    Returns contexts int32 [B, longest], where row i holds tokens[starts[i] : starts[i] + cuts[i]] (without the one that
    is left out, and one more instead) padded with 0 on the right, and targets int32 [B], the token after each context;
    [B, horizon] when horizon is above 1.
    """
    columns = np.arange(longest)
    shown = columns[None, :] < cuts[:, None]
    skip = 0 if holes is None else (columns[None, :] >= holes[:, None]).astype(np.int64)
    index = np.where(shown, starts[:, None] + columns[None, :] + skip, 0)
    contexts = np.where(shown, tokens[index], 0).astype(np.int32)
    ends = starts + cuts + (0 if holes is None else 1)
    targets = tokens[ends[:, None] + np.arange(horizon)].astype(np.int32)
    return contexts, targets[:, 0] if horizon == 1 else targets
