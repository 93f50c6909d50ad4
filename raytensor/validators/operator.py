"""Many subnets, each validated in a thread of its own; one that fails stops alone and is tried again later.

In: what is known of each subnet's clock and metagraph (`Clock`), a way to ask, the scorers' desk. Out: rounds, faults and
weights that are due, through callbacks, and a `Row` for each subnet at any time.
A subnet plays `rounds_per_tempo` rounds in a tempo. Weights of the last good round are due `margin_blocks` before the
epoch, once an epoch; a subnet whose last round failed has none, so nothing that an error made goes on the chain.
Waits for: nothing in `tick`. A subnet's thread that is stuck beyond its limit is left behind, and a new one is started.
Knows nothing of the chain or of terminals.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raytensor.types import Commit, Metagraph, Weights
from raytensor.validators.round import RoundResult, SubnetValidator
from raytensor.validators.scorer_service import ScorerService
from raytensor.validators.transport import MinerTransport

log = logging.getLogger(__name__)


class Clock(Protocol):
    """What the operator must know of a subnet now. metagraph: None while there is none that is fresh enough."""

    block: int
    tempo: int
    next_epoch: int
    metagraph: Metagraph | None
    commits: Mapping[str, Commit]
    trouble: str


@dataclass(frozen=True)
class Pace:
    """When rounds are played, when weights are due, and how long a subnet that failed rests."""

    rounds_per_tempo: int = 3
    margin_blocks: int = 20
    backoff_s: float = 10.0
    backoff_most_s: float = 900.0
    round_limit_s: float = 900.0
    rounds: int | None = None

    def margin(self, tempo: int) -> int:
        """Blocks before the epoch at which weights are due: at most a third of the tempo."""
        return max(1, min(self.margin_blocks, tempo // 3))

    def between_rounds(self, tempo: int) -> int:
        """Blocks between the starts of two rounds."""
        return max(1, (tempo - self.margin(tempo)) // self.rounds_per_tempo)


@dataclass
class Row:
    """A subnet as a person wants to see it. state: starting | waiting | asking | failed | stuck | done."""

    netuid: int
    state: str = "starting"
    rounds: int = 0
    failures: int = 0  # in a row
    cause: str = ""
    retry_at: float = 0.0  # wall time
    last: RoundResult | None = None
    handed_at_block: int = 0


class SubnetLoop:
    """The thread of one subnet. make: opens its state; called again after a failure, so that nothing half done stays."""

    def __init__(
        self,
        netuid: int,
        make: Callable[[], SubnetValidator],
        pace: Pace,
        transport: MinerTransport,
        desk: ScorerService,
        clock: Callable[[], Clock],
    ) -> None:
        self.row = Row(netuid)
        self._make, self._pace, self._transport, self._desk, self._clock = make, pace, transport, desk, clock
        self._stop = threading.Event()
        self._generation = 0
        self._busy_since: float | None = None
        self._good: list[Weights] = []  # of the last good round
        self._handed_for = 0  # epoch block for which weights were handed in
        self._handed_rounds = 0  # rounds that were played then
        self.on_round: Callable[[RoundResult], None] = lambda result: None
        self.on_fault: Callable[[int, str, float], None] = lambda netuid, cause, rest_s: None

    def start(self) -> None:
        self._generation += 1
        threading.Thread(
            target=self._run, args=(self._generation,), name=f"subnet-{self.row.netuid}", daemon=True
        ).start()

    def stop(self) -> None:
        self._stop.set()

    def due(self, clock: Clock) -> list[Weights]:
        """The weights that are to be handed in now; each epoch's only once, and those of the last round of all."""
        good = list(self._good)
        if not good or not clock.tempo:
            return []
        in_margin = (
            clock.next_epoch - clock.block <= self._pace.margin(clock.tempo) and clock.next_epoch > self._handed_for
        )
        last = self.row.state == "done" and self._handed_rounds < self.row.rounds
        if not in_margin and not last:
            return []
        if in_margin:
            self._handed_for = clock.next_epoch
        self._handed_rounds, self.row.handed_at_block = self.row.rounds, clock.block
        return good

    def look_after(self) -> None:
        """A thread that is stuck is left behind: what it does from now on counts for nothing."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._pace.round_limit_s:
            self._busy_since = None
            self._failed(f"a round was not through within {self._pace.round_limit_s:g} s")
            self.row.state = "stuck"
            self.start()

    # The thread

    def _over(self, generation: int) -> bool:
        return self._stop.is_set() or generation != self._generation

    def _run(self, generation: int) -> None:
        while not self._over(generation):
            self._rest(generation)
            validator: SubnetValidator | None = None
            try:
                if self._over(generation):
                    return
                self._busy_since = time.monotonic()
                validator = self._make()
                self._busy_since = None
                self._play(generation, validator)
                return
            except Exception as error:  # the supervisor's edge: this subnet rests, the others go on
                if generation != self._generation:
                    return
                log.exception("subnet %d failed", self.row.netuid)
                self._busy_since = None
                self._failed(f"{type(error).__name__}: {error}")
            finally:
                if validator is not None:
                    validator.close()

    def _play(self, generation: int, validator: SubnetValidator) -> None:
        next_block = 0
        while not self._over(generation):
            clock = self._clock()
            if self._pace.rounds is not None and self.row.rounds >= self._pace.rounds:
                self.row.state = "done"
            elif clock.trouble:
                self._failed(clock.trouble)
                self._rest(generation)
                continue
            elif clock.metagraph is not None and clock.block >= next_block:
                next_block = clock.block + self._pace.between_rounds(clock.tempo)
                self.row.state = "asking"
                self._busy_since = time.monotonic()
                result = validator.play(
                    clock.metagraph, self._transport, self._desk, lambda: self._over(generation), clock.commits
                )
                if generation != self._generation:
                    return
                self._busy_since = None
                if result is None:
                    return
                self._good = validator.weights(clock.metagraph.block)
                self.row.last, self.row.failures, self.row.cause = result, 0, ""
                self.row.rounds += 1
                self.row.state = "waiting"
                self.on_round(result)
                continue
            self._stop.wait(0.2)

    def _failed(self, cause: str) -> None:
        self._good = []
        row, pace = self.row, self._pace
        rest_s = min(pace.backoff_most_s, pace.backoff_s * 2.0 ** min(row.failures, 30))
        row.failures += 1
        row.state, row.cause, row.retry_at = "failed", cause, time.time() + rest_s
        self.on_fault(row.netuid, cause, rest_s)

    def _rest(self, generation: int) -> None:
        while time.time() < self.row.retry_at and not self._over(generation):
            self._stop.wait(min(0.5, max(0.01, self.row.retry_at - time.time())))


class Operator:
    """All subnets. hand_in: given the weights that are due; must not wait."""

    def __init__(
        self, subnets: Sequence[SubnetLoop], clock_of: Callable[[int], Clock], hand_in: Callable[[list[Weights]], Any]
    ) -> None:
        self.subnets = list(subnets)
        self._clock_of, self._hand_in = clock_of, hand_in

    def start(self) -> None:
        for subnet in self.subnets:
            subnet.start()

    def tick(self) -> list[Weights]:
        """Look after everyone once; the weights that were handed in."""
        due: list[Weights] = []
        for subnet in self.subnets:
            subnet.look_after()
            due += subnet.due(self._clock_of(subnet.row.netuid))
        if due:
            self._hand_in(due)
        return due

    @property
    def rows(self) -> list[Row]:
        return [subnet.row for subnet in self.subnets]

    @property
    def done(self) -> bool:
        """Whether every subnet has played the rounds that were asked for."""
        return all(row.state == "done" for row in self.rows)

    def stop(self) -> None:
        """End the threads; a round that is not through does not count."""
        for subnet in self.subnets:
            subnet.stop()
