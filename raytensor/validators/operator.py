"""Many subnets, each validated in a thread; one that fails rests alone and is tried again later.

In: each subnet's clock and metagraph (`Clock`), and a way to open its validator. Out: rounds, faults and due weights,
through callbacks, and a `SubnetRow` for each subnet at any time.
A subnet plays `rounds_per_tempo` rounds in a tempo. Weights of the last good round are due `margin_blocks` before the
epoch, once per epoch. A subnet whose last round failed has none, so an error's weights never reach the chain.
Waits for: nothing in `tick`. A thread that exceeds its limit is abandoned, and a new one is started.
Knows nothing of the chain or of terminals.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raytensor.clock import since_boot
from raytensor.errors import RayTensorError
from raytensor.supervised import SupervisedThread, tell
from raytensor.types import Metagraph, Weights
from raytensor.validators.round import RoundResult
from raytensor.validators.subnet import Commits, SubnetValidator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clock:
    """What is known of a subnet now.

    metagraph  None while there is none that is fresh enough.
    trouble    why the subnet can't be read; "" when it can.
    """

    block: int
    tempo: int
    next_epoch: int
    metagraph: Metagraph | None
    commits: Commits
    trouble: str


@dataclass(frozen=True)
class Pace:
    """When rounds are played, when weights are due, and how long a subnet that failed rests.

    rounds  after which a subnet is done; None: never.
    """

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
class SubnetRow:
    """A subnet's status for a view. state: starting | waiting | asking | failed | stuck | done."""

    netuid: int
    state: str = "starting"
    rounds: int = 0
    failures: int = 0  # in a row
    cause: str = ""
    retry_at: float = 0.0  # wall time, to show
    last: RoundResult | None = None


class SubnetLoop:
    """The thread of one subnet.

    make      opens its validator; called again after a failure, so no state of a failed round is kept.
    on_round  is called with each round's result.
    on_fault  is called with (netuid, cause, seconds of rest).
    """

    def __init__(
        self,
        netuid: int,
        make: Callable[[], SubnetValidator],
        pace: Pace,
        clock: Callable[[], Clock],
        *,
        on_round: Callable[[RoundResult], None] = lambda result: None,
        on_fault: Callable[[int, str, float], None] = lambda netuid, cause, rest_s: None,
    ) -> None:
        self.row = SubnetRow(netuid)
        self._make, self._pace, self._clock = make, pace, clock
        self._on_round, self._on_fault = on_round, on_fault
        self._stop = threading.Event()
        self._generation = 0
        self.busy_since: float | None = None  # monotonic time at which the present round, or the opening, began
        self._rests_until = 0.0  # since_boot: no set clock changes how long a subnet rests
        self._good: list[Weights] = []  # of the last good round
        self._handed_for = 0  # epoch block for which weights were handed over
        self._handed_rounds = 0  # rounds that had been played by then

    def start(self) -> None:
        """Start the thread, or one that replaces it."""
        self._generation += 1
        generation = self._generation
        pause_s = self._pace.backoff_s, self._pace.backoff_most_s
        SupervisedThread(f"subnet-{self.row.netuid}", lambda thread: self._run(generation), pause_s=pause_s).start()

    def stop(self) -> None:
        """End the thread soon; an unfinished round is abandoned."""
        self._stop.set()

    def due(self, clock: Clock) -> list[Weights]:
        """The weights to hand over now: once per epoch, and those of the last round of all."""
        good = list(self._good)
        if not good or not clock.tempo:
            return []
        epoch, margin = clock.next_epoch, self._pace.margin(clock.tempo)
        in_margin = epoch - clock.block <= margin and epoch > self._handed_for
        last = self.row.state == "done" and self._handed_rounds < self.row.rounds
        if not in_margin and not last:
            return []
        if in_margin:
            self._handed_for = epoch
        self._handed_rounds = self.row.rounds
        return good

    def check_stuck(self) -> None:
        """Replace a thread that exceeds its limit; the results of the old one are ignored."""
        since = self.busy_since
        if since is not None and time.monotonic() - since > self._pace.round_limit_s:
            self.busy_since = None
            self._failed(f"a round did not end within {self._pace.round_limit_s:g} s")
            self.row.state = "stuck"
            self.start()

    def _ended(self, generation: int) -> bool:
        return self._stop.is_set() or generation != self._generation

    def _run(self, generation: int) -> bool:
        """Rest, open the validator and play its rounds. False when the thread is to end."""
        self._rest(generation)
        if self._ended(generation):
            return False
        validator: SubnetValidator | None = None
        try:
            self.busy_since = time.monotonic()
            validator = self._make()
            self.busy_since = None
            self._play_rounds(generation, validator)
            return False
        except BaseException as error:  # the supervisor's edge: this subnet rests, the others continue
            if generation != self._generation:
                return False
            ours = isinstance(error, RayTensorError)  # its text is the cause already
            log.error("subnet %d failed: %s", self.row.netuid, error, exc_info=not ours)
            self.busy_since = None
            self._failed(str(error) if ours else f"{type(error).__name__}: {error}")
            return True
        finally:
            if validator is not None:
                self._close(validator)

    def _close(self, validator: SubnetValidator) -> None:
        """Close a validator whose rounds have ended. What fails here, as on a full disk, must not fail the thread."""
        try:
            validator.close()
        except Exception as error:  # the supervisor's edge: the next validator opens the same files and repairs them
            log.error("subnet %d: its validator can't be closed: %s", self.row.netuid, error)

    def _play_rounds(self, generation: int, validator: SubnetValidator) -> None:
        next_block = 0
        while not self._ended(generation):
            clock = self._clock()
            if self._pace.rounds is not None and self.row.rounds >= self._pace.rounds:
                self.row.state = "done"
            elif clock.trouble:
                self._failed(clock.trouble)
                self._rest(generation)
                continue
            elif clock.metagraph is not None and clock.block >= next_block:
                next_block = clock.block + self._pace.between_rounds(clock.tempo)
                if not self._play(generation, validator, clock.metagraph, clock.commits):
                    return
                continue
            self._stop.wait(0.2)

    def _play(self, generation: int, validator: SubnetValidator, metagraph: Metagraph, commits: Commits) -> bool:
        """Play one round; False when the thread is to end."""
        self.row.state, self.busy_since = "asking", time.monotonic()
        result = validator.play(metagraph, lambda: self._ended(generation), commits)
        if generation != self._generation:
            return False
        self.busy_since = None
        if result is None:
            return False
        self._good = validator.weights(metagraph.block)
        row = self.row
        row.last, row.failures, row.cause, row.rounds, row.state = result, 0, "", row.rounds + 1, "waiting"
        tell(f"subnet-{row.netuid} round", self._on_round, result)
        return True

    def _failed(self, cause: str) -> None:
        self._good = []
        row, pace = self.row, self._pace
        rest_s = min(pace.backoff_most_s, pace.backoff_s * 2.0 ** min(row.failures, 30))
        row.failures += 1
        row.state, row.cause, row.retry_at = "failed", cause, time.time() + rest_s
        self._rests_until = since_boot() + rest_s
        tell(f"subnet-{row.netuid} fault", self._on_fault, row.netuid, cause, rest_s)

    def _rest(self, generation: int) -> None:
        while (left_s := self._rests_until - since_boot()) > 0 and not self._ended(generation):
            self._stop.wait(min(0.5, max(0.01, left_s)))


class Operator:
    """All subnets. hand_over: is called with the weights that are due; it must not block."""

    def __init__(
        self, subnets: Sequence[SubnetLoop], clock_of: Callable[[int], Clock], hand_over: Callable[[list[Weights]], Any]
    ) -> None:
        self.subnets = list(subnets)
        self._clock_of, self._hand_over = clock_of, hand_over

    def start(self) -> None:
        """Start the threads of all subnets."""
        for subnet in self.subnets:
            subnet.start()

    def tick(self) -> list[Weights]:
        """Replace stuck threads and hand over the weights that are due; returns these."""
        due: list[Weights] = []
        for subnet in self.subnets:
            subnet.check_stuck()
            due += subnet.due(self._clock_of(subnet.row.netuid))
        if due:
            self._hand_over(due)
        return due

    @property
    def rows(self) -> list[SubnetRow]:
        """The status of every subnet."""
        return [subnet.row for subnet in self.subnets]

    @property
    def done(self) -> bool:
        """Whether every subnet has played the rounds that were asked for."""
        return all(row.state == "done" for row in self.rows)

    def stop(self) -> None:
        """End the threads; unfinished rounds are abandoned."""
        for subnet in self.subnets:
            subnet.stop()
