"""Finds updates that are copies of others, by sketches small enough to be logged.

In: decoded payloads of a round. Out: a sketch of each (float tuple), and {copier: author}. Pure numpy.

A count sketch (Charikar et al. 2002) keeps angles: the cosine of two sketches of w numbers is that of the vectors, to
about 1 / sqrt(w). Honest updates of one round overlap (the same model, like data); a copy, also with noise added or
rescaled, lies within a few degrees of its victim.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from raytensor.mechanisms.collab.codec import Sparse

WIDTH = 192


def sketch(update: Sparse, draw: np.random.Generator, width: int = WIDTH) -> tuple[float, ...]:
    """The sketch of an update, of norm 1 (all zero for an empty one). `draw` must be the same for all of a round."""
    bucket = draw.integers(0, width, update.size)
    sign = draw.integers(0, 2, update.size) * 2.0 - 1.0
    found = np.bincount(bucket[update.places], weights=update.values * sign[update.places], minlength=width)
    norm = float(np.linalg.norm(found))
    if norm > 0:
        found = found / norm
    return tuple(float(value) for value in np.round(found, 6))


def copies(
    sketches: Mapping[str, Sequence[float]], claim: Mapping[str, tuple], threshold: float = 0.75
) -> dict[str, str]:
    """{hotkey: hotkey whose update it copies}, for every update of a group of similar ones except the group's author.

    claim  of each hotkey to be the author, the smallest wins: block of its commitment, then its edge (see `rating`).
    Similarity is transitive: a copy of a copy is in the same group.
    """
    hotkeys = sorted(sketches)
    table = np.array([sketches[hotkey] for hotkey in hotkeys], np.float64).reshape(len(hotkeys), -1)
    alike = (table @ table.T > threshold) | np.eye(len(hotkeys), dtype=bool)
    group = np.arange(len(hotkeys))
    for row in alike:
        joined = np.isin(group, group[row])
        group[joined] = group[joined].min()
    found = {}
    for number in set(group.tolist()):
        members = [hotkey for hotkey, own in zip(hotkeys, group) if own == number]
        author = min(members, key=lambda hotkey: (claim[hotkey], hotkey))
        found.update({hotkey: author for hotkey in members if hotkey != author})
    return found
