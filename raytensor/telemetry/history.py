"""A run so far, folded from its events: what the console shows, the summary counts and the report draws.

In: events, in order, of one or more processes (a run that was resumed). Out: plain attributes and `rows()`.
The same events give the same history, whether they are read from a file or seen as they happen. Knows nothing of
files, terminals or plots.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raytensor.telemetry.events import (
    BlockSeen,
    EpochSeen,
    Event,
    Extrinsics,
    NetworkUp,
    NeuronInfo,
    Phase,
    ReceiptSeen,
    RoundDone,
    Started,
    Stopped,
    Warned,
    WeightsMade,
)

PARTS = ("training", "asking", "scoring", "chain", "idle")  # of a round's wall time


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one neuron; None is "nothing yet", or "not for this role".

    loss        held-out loss as the mechanism keeps it, nats per token.
    score       the mechanism's value, higher is better.
    weight      share of the weights that the validators gave it, their mean; sums to 1 over the miners.
    incentive, dividends    share in 0..1 that the newest epoch gave.
    emission_rao            paid by all epochs of the run.
    standing    where the mechanism says that a miner stands ("king"); "" where it says nothing.
    """

    uid: int
    hotkey: str
    role: str
    behaviour: str
    name: str
    loss: float | None
    score: float | None
    weight: float | None
    incentive: float | None
    dividends: float | None
    emission_rao: int
    standing: str = ""


class History:
    """The fold. Seconds on its clock count only while a process worked on the run.

    rounds      RoundDone events, one a round; a round that was played again after a crash counts once, as the last.
    epochs      EpochSeen events.
    weights     {validator hotkey: {miner hotkey: share}}, the newest, each summing to 1.
    blocks      [(seconds, block)];  extrinsics  [(seconds, submitted, included, failed)], counted over all processes.
    receipts    {(call, fate): number};  errors  {error name: number}.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.name = ""
        self.seed = 0
        self.version = ""
        self.rounds_planned = 0
        self.phase = ""
        self.endpoint = ""
        self.netuid: int | None = None
        self.spec_version: int | None = None
        self.tempo = 0
        self.block: int | None = None
        self.blocks_until_epoch: int | None = None
        self.neurons: dict[str, NeuronInfo] = {}
        self.rounds: list[RoundDone] = []
        self.epochs: list[EpochSeen] = []
        self.weights: dict[str, dict[str, float]] = {}
        self.blocks: list[tuple[float, int]] = []
        self.extrinsics: list[tuple[float, int, int, int]] = []
        self.receipts: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.warnings: list[Warned] = []
        self.stopped: str | None = None
        self._loss: dict[str, float] = {}  # newest finite one of each miner
        self._paid: Counter[str] = Counter()
        self.started_at: float | None = None  # unix seconds of the first event
        self.sessions = 0
        self._session_at = 0.0  # unix seconds of this process's first event
        self._newest_at = 0.0
        self._before_s = 0.0  # seconds that earlier processes worked
        self._counts_before = (0, 0, 0)
        for event in events:
            self.apply(event)

    # ---------------------------------------------------------------------------------------------------- the fold

    def apply(self, event: Event) -> None:
        """Take in the next event."""
        if self.started_at is None:
            self.started_at = self._session_at = self._newest_at = event.t
        if isinstance(event, Started):
            self._new_session(event)
        self._newest_at = max(self._newest_at, event.t)
        match event:
            case Phase():
                self.phase = event.text
            case NetworkUp():
                self.endpoint, self.netuid, self.spec_version = event.endpoint, event.netuid, event.spec_version
                self.tempo = event.tempo
                self.neurons = {neuron.hotkey: neuron for neuron in event.neurons}
            case RoundDone():
                self.rounds_planned = event.rounds
                while self.rounds and self.rounds[-1].round >= event.round:
                    self.rounds.pop()
                self.rounds.append(event)
                self._loss.update({key: x for key, x in event.losses.items() if x is not None and math.isfinite(x)})
            case WeightsMade():
                self.weights[event.hotkey] = shares(event.values)
            case ReceiptSeen():
                self.receipts[event.call, event.fate] += 1
                if event.error:
                    self.errors[event.error] += 1
            case BlockSeen():
                self.block, self.tempo, self.blocks_until_epoch = event.block, event.tempo, event.blocks_until_epoch
                self.blocks.append((self.clock(event.t), event.block))
            case EpochSeen():
                if not self.epochs or self.epochs[-1].block != event.block:
                    self.epochs.append(event)
                    self._paid.update({key: int(amount) for key, amount in event.emission_rao.items()})
            case Extrinsics():
                now = (event.submitted, event.included, event.failed)
                self.extrinsics.append((self.clock(event.t), *(a + b for a, b in zip(self._counts_before, now))))
            case Warned():
                self.warnings.append(event)
            case Stopped():
                self.stopped = event.reason

    def _new_session(self, event: Started) -> None:
        self._before_s = self.clock(self._newest_at)
        self._session_at = self._newest_at = event.t
        self._counts_before = self.extrinsics[-1][1:] if self.extrinsics else (0, 0, 0)
        self.sessions += 1
        self.name, self.seed, self.version, self.rounds_planned = event.name, event.seed, event.version, event.rounds
        self.stopped = None

    # ---------------------------------------------------------------------------------------------------- readings

    def clock(self, t: float) -> float:
        """Seconds of work on the run at unix time `t` of the newest process."""
        return self._before_s + max(0.0, t - self._session_at)

    @property
    def wall_s(self) -> float:
        """Seconds of work up to the newest event."""
        return self.clock(self._newest_at)

    @property
    def round(self) -> int:
        """The newest round that is over; 0 before the first."""
        return self.rounds[-1].round if self.rounds else 0

    def eta_s(self) -> float | None:
        """Seconds that the rounds to come will take, by the mean of the newest five; None before the first."""
        newest = [event.wall_s for event in self.rounds[-5:] if math.isfinite(event.wall_s)]
        if not newest:
            return None
        return max(0, self.rounds_planned - self.round) * sum(newest) / len(newest)

    def counts(self) -> dict[str, int]:
        """Extrinsics submitted, included and failed, over all processes of the run."""
        submitted, included, failed = self.extrinsics[-1][1:] if self.extrinsics else (0, 0, 0)
        return {"submitted": submitted, "included": included, "failed": failed}

    def losses(self, hotkey: str) -> list[tuple[int, float]]:
        """[(round, loss)] of a miner, finite ones only."""
        found = ((event.round, event.losses.get(hotkey)) for event in self.rounds)
        return [(number, loss) for number, loss in found if loss is not None and math.isfinite(loss)]

    def time_s(self) -> dict[str, float]:
        """Seconds of the rounds by part, and "outside": start-up and everything else that is no round."""
        parts = [(e.train_s, e.ask_s, e.score_s, e.chain_s, e.idle_s) for e in self.rounds]
        sums = [math.fsum(column) for column in zip(*parts)] or [0.0] * len(PARTS)
        in_rounds = math.fsum(event.wall_s for event in self.rounds)
        return dict(zip(PARTS, sums)) | {"outside": max(0.0, self.wall_s - in_rounds)}

    def mean_weights(self) -> dict[str, float]:
        """{miner hotkey: mean share over the validators}; from the mechanism's values before any weights were made."""
        if not self.weights:
            return shares(self.rounds[-1].values) if self.rounds else {}
        total: Counter[str] = Counter()
        for row in self.weights.values():
            for hotkey, share in row.items():
                total[hotkey] += share
        return shares(total)

    def rows(self) -> list[Row]:
        """All neurons by uid."""
        newest = self.rounds[-1] if self.rounds else None
        epoch = self.epochs[-1] if self.epochs else None
        weights = self.mean_weights()
        rows = []
        for neuron in sorted(self.neurons.values(), key=lambda neuron: neuron.uid):
            key, miner = neuron.hotkey, neuron.role == "miner"
            rows.append(
                Row(
                    uid=neuron.uid,
                    hotkey=key,
                    role=neuron.role,
                    behaviour=neuron.behaviour,
                    name=neuron.name,
                    loss=self._loss.get(key),
                    score=newest.values.get(key) if newest else None,
                    weight=(weights.get(key, 0.0) if weights else None) if miner else None,
                    incentive=epoch.incentive.get(key, 0.0) if epoch else None,
                    dividends=epoch.dividends.get(key, 0.0) if epoch else None,
                    emission_rao=self._paid[key],
                    standing=newest.standings.get(key, "") if newest else "",
                )
            )
        return rows


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Values scaled to sum to 1; all 0 when nothing is above 0."""
    clean = {
        key: value if value is not None and math.isfinite(value) and value > 0 else 0.0 for key, value in values.items()
    }
    total = math.fsum(clean.values())
    return {key: value / total if total > 0 else 0.0 for key, value in clean.items()}


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Miners, the best paid first; among equals the lower loss, then the lower uid."""

    def order(row: Row) -> tuple[float, float, float, int]:
        loss = row.loss if row.loss is not None else math.inf
        return (-(row.incentive or 0.0), -(row.weight or 0.0), loss, row.uid)

    return sorted((row for row in rows if row.role == "miner"), key=order)
