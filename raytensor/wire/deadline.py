"""The adaptive deadline: how long to wait for the last answers, by how long the others took.

In: seconds that each answer took, and how many are still out. Out: seconds, or None while it is too early to say.
Pure. Knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def adaptive_deadline_s(
    done_s: Sequence[float], num_open: int, *, mads: float, quorum: float, least_s: float
) -> float | None:
    """median + mads * MAD of the times of all questions, the open ones counted as later than every answer.

    done_s    seconds that each answer took.
    num_open  questions without an answer so far.
    quorum    share of all questions that must have an answer first; above a half.
    least_s   the deadline is never below this.

    Counting the open ones (as infinite) keeps the median where it will be when all have answered; the median of the
    answers alone would fall to the fast ones. With more than half of them in, median and median absolute deviation are
    finite whatever the others will do. None before the quorum.
    """
    total = len(done_s) + num_open
    if total == 0 or mads <= 0 or len(done_s) < quorum * total:
        return None
    half = (total - 1) // 2  # the lower median: an answer's own time, also when the count is even
    times = np.full(total, np.inf)
    times[: len(done_s)] = done_s
    middle = float(np.partition(times, half)[half])
    deviation = float(np.partition(np.abs(times - middle), half)[half])
    return max(least_s, middle + mads * deviation)
