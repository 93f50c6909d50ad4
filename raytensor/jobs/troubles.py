"""What is wrong beside the weights: the chain writer, the threads, this machine's clock, the endpoints.

In: the parts of a validator, by what they say of themselves. Out: a cause for each, "" while there is none, judged in
the main thread, so that a part that stands still is told, too. Waits for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from raytensor.chain.reads.agreement import EndpointsWatch
from raytensor.chain.reads.follower import Follower
from raytensor.jobs.handover import Handover
from raytensor.supervised import UNEXPECTED

NO_CLOCK_S = 7 * 86_400.0  # a development chain that makes blocks on demand counts slots, not time
CLOCK_S = 20.0  # difference from the chain's clock above which signed requests and answers count as stale


@dataclass(frozen=True, slots=True)
class Trouble:
    """why: "" for none. age_s: how long it has lasted, 0 where that is not measured."""

    why: str
    fix: str = ""
    age_s: float = 0.0


def troubles(
    handover: Handover, follower: Follower, endpoints: EndpointsWatch | None, silent_s: float
) -> Mapping[str, Trouble]:
    """The troubles by what has them. silent_s: age in seconds from which a writer without progress is one."""
    age_s, why = handover.writer_silence
    stuck = age_s > silent_s >= handover.silent_s  # a writer that does not answer at all is an alarm of its own
    found = {
        "writer": Trouble(
            f"no progress for {age_s:.0f} s: {why}" if stuck else "",
            "weights are kept and set when it works again; look at the endpoint, the disk and the log",
            age_s,
        ),
        "reader": Trouble("" if follower.thread.alive else "its thread has ended", "start the job again"),
        "threads": Trouble(thread_trouble(), "job.log has the traceback, report it; start the job again"),
        "clock": Trouble(clock_trouble(follower.clock_skew_s), "set the clock of this machine (NTP)"),
    }
    if endpoints is not None:
        found["endpoints"] = Trouble(endpoints.disagreement, "find out which endpoint is right before money is moved")
    return found


def thread_trouble() -> str:
    """The errors of this process's threads that fail now, "" for none."""
    return "; ".join(f"{name} failed: {words}" for name, words in sorted(UNEXPECTED.failing.items()))


def clock_trouble(skew_s: float | None) -> str:
    """Why this machine's clock is a trouble; skew_s: seconds that it is ahead of the chain's."""
    if skew_s is None or not CLOCK_S < abs(skew_s) < NO_CLOCK_S:
        return ""
    if skew_s < 0:
        return f"the clock of this machine is {-skew_s:.0f} s behind the chain's"
    return f"the clock of this machine is {skew_s:.0f} s ahead of the chain's, or the endpoint lags by as much"
