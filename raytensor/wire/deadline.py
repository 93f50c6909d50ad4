"""The adaptive deadline: how long to wait for the last answers, from the times of the others.

In: seconds that each answer took, and the number of open questions. Out: seconds, or None before the quorum.
Pure. Knows nothing of HTTP.
"""

from collections.abc import Sequence

import numpy as np


def adaptive_deadline_s(
    done_s: Sequence[float], num_open: int, *, mads: float, quorum: float, least_s: float
) -> float | None:
    """median + mads * MAD of the times of all questions, where open ones count as later than every answer.

    done_s    seconds that each answer took.
    num_open  questions without an answer so far.
    quorum    share of all questions that must have an answer first; above 0.5.
    least_s   lower limit of the deadline.

    With the open questions counted as infinite, the median does not depend on when they are answered; the median of the
    answers alone would favour the fast ones. Above half of the answers, the median and the median absolute deviation
    (MAD) are finite. None before the quorum.
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
