"""Which miners of a subnet to ask, in which order, and when to ask another one as well.

In: metagraphs, the times and failures of earlier requests. Out: miners, best first; seconds. Everything is kept by
hotkey. Pure: the time is an argument. Bounds: 256 times per subnet; an entry per hotkey asked.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from raytensor.commands import query_miners
from raytensor.commands.query_miners import MinerAnswer
from raytensor.config.gateway import Routing
from raytensor.types import Metagraph

MEASURED = 8  # answers, from which on their quantile is used
KEPT = 256
NEWEST = 0.3  # weight of the newest time in a miner's mean
MOST_DOUBLINGS = 5
LEAST_WEIGHT = 1e-6  # of a miner without incentive, so that latency orders those


@dataclass
class _Known:
    """What is known of a miner. mean_s: time to the first piece of text, None before the first."""

    mean_s: float | None = None
    in_flight: int = 0
    failures: int = 0  # in a row
    rests_until_s: float = 0.0


class Router:
    """Of one gateway, all its subnets."""

    def __init__(self, settings: Routing, own: str, *, allow_local: bool) -> None:
        self._settings, self._own, self._allow_local = settings, own, allow_local
        self._known: dict[str, _Known] = {}
        self._times: dict[int, deque[float]] = {}

    def order(self, metagraph: Metagraph, now_s: float) -> list[MinerAnswer]:
        """The miners that may be asked, best first: by incentive / (latency * requests in flight); failed ones last.

        Raises `QueryFailed` when nobody serves an address.
        """
        miners = query_miners.choose(metagraph, self._settings.top, own=self._own)
        query_miners.refuse_unreachable(miners, allow_local=self._allow_local)
        measured = [one.mean_s for one in map(self._of, (m.hotkey for m in miners)) if one.mean_s is not None]
        usual_s = float(np.median(measured)) if measured else 1.0

        def rank(miner: MinerAnswer) -> tuple[bool, float, int]:
            known = self._of(miner.hotkey)
            latency_s = max(1e-3, usual_s if known.mean_s is None else known.mean_s)
            score = (miner.weight + LEAST_WEIGHT) / (latency_s * (1 + known.in_flight))
            return known.rests_until_s > now_s, -score, miner.uid

        return sorted((one for one in miners if not one.error), key=rank)

    def hedge_after_s(self, netuid: int) -> float:
        """Seconds without a first piece of text after which the next miner is asked as well."""
        times = self._times.get(netuid, ())
        if len(times) < MEASURED:
            return self._settings.hedge_initial_s
        return max(self._settings.hedge_min_s, float(np.quantile(list(times), self._settings.hedge_quantile)))

    def asked(self, hotkey: str) -> None:
        """A request is on its way; `answered`, `outrun` or `failed` ends it."""
        self._of(hotkey).in_flight += 1

    def answered(self, netuid: int, hotkey: str, took_s: float) -> None:
        """The first piece of text arrived."""
        self._times.setdefault(netuid, deque(maxlen=KEPT)).append(took_s)
        self._measure(hotkey, took_s)
        self._of(hotkey).failures = 0

    def outrun(self, hotkey: str, waited_s: float) -> None:
        """Another miner was faster; this one took at least `waited_s`."""
        known = self._of(hotkey)
        self._measure(hotkey, max(waited_s, known.mean_s or 0.0))

    def failed(self, hotkey: str, now_s: float) -> None:
        """No answer, or one that broke off: it is asked last for a while."""
        known = self._of(hotkey)
        known.in_flight -= 1
        self.broke_off(hotkey, now_s)

    def broke_off(self, hotkey: str, now_s: float) -> None:
        """An answer that had begun did not end."""
        known = self._of(hotkey)
        known.rests_until_s = now_s + self._settings.rest_s * 2 ** min(known.failures, MOST_DOUBLINGS)
        known.failures += 1

    def _measure(self, hotkey: str, took_s: float) -> None:
        known = self._of(hotkey)
        known.in_flight -= 1
        known.mean_s = took_s if known.mean_s is None else (1 - NEWEST) * known.mean_s + NEWEST * took_s

    def _of(self, hotkey: str) -> _Known:
        return self._known.setdefault(hotkey, _Known())
