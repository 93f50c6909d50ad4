"""A run so far, folded from its events: what the console shows, the summary counts and the report draws.

In: events, in order, of one or more processes (a run that was resumed). Out: plain attributes and `rows()`.
The same events give the same history, whether they are read from a file or seen as they happen. Knows nothing of
files, terminals or plots.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raytensor.telemetry import events
from raytensor.telemetry.events import EpochSeen, Event, NeuronInfo, RoundDone, Warned

PARTS = ("training", "asking", "scoring", "chain", "idle")  # of a round's wall time
COUNTING = ("included", "revealed")  # fates of weights that consensus goes by


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one neuron; None means not known yet, or that it does not apply to the role.

    standing    in the mechanism's word ("king"); "" where the mechanism has none.
    loss        of a miner's answers as the validators score them: the mechanism's newest value, for most mechanisms a
                moving average; nats per token.
    score       the mechanism's value, higher is better.
    weight      mean share of the validators' weights; sums to 1 over the miners.
    incentive, dividends, validator_trust   share in 0..1 of the newest epoch.
    emission_rao         paid by all epochs of the run: its value in rao of TAO.
    emission_alpha_rao   the same in rao of alpha, which is what a subnet pays; None in logs that do not have it.
    stake_alpha_rao      on the subnet at the newest epoch, rao of alpha.
    weights_block        of a validator: block of its newest weights that count.
    """

    uid: int
    hotkey: str
    name: str
    role: str
    behaviour: str
    standing: str
    loss: float | None
    score: float | None
    weight: float | None
    incentive: float | None
    dividends: float | None
    validator_trust: float | None
    emission_rao: int
    emission_alpha_rao: int | None
    stake_alpha_rao: int | None
    weights_block: int | None


class History:
    """The fold of a run's events. Seconds on its clock count only while a process worked on the run.

    rounds      RoundDone events, one a round; a round that was played again after a crash counts once, as the last.
    epochs      EpochSeen events.
    weights     {validator hotkey: {miner hotkey: share}}, the newest, each summing to 1.
    weights_set   {validator hotkey: (first block, newest block)} of its weights that count.
    blocks      [(seconds, block)];  extrinsics  [(seconds, submitted, included, failed)], counted over all processes.
    receipts    {(call, fate): number};  errors  {error name: number};  advice  {error name: what to do}.
    fees_rao    {call: fees paid by the chain writer, rao of TAO};  setup_rao  {what: paid at set-up}, `NetworkUp`'s.
    """

    def __init__(self, past: Iterable[Event] = ()) -> None:
        self.name = self.phase = self.endpoint = ""
        self.seed = self.rounds_planned = self.tempo = self.weights_every = self.sessions = 0
        self.netuid: int | None = None
        self.spec_version: int | None = None
        self.block: int | None = None
        self.blocks_until_epoch: int | None = None
        self.neurons: dict[str, NeuronInfo] = {}
        self.rounds: list[RoundDone] = []
        self.epochs: list[EpochSeen] = []
        self.weights: dict[str, dict[str, float]] = {}
        self.weights_set: dict[str, tuple[int, int]] = {}
        self.blocks: list[tuple[float, int]] = []
        self.extrinsics: list[tuple[float, int, int, int]] = []
        self.receipts: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.advice: dict[str, str] = {}
        self.fees_rao: Counter[str] = Counter()
        self.setup_rao: Counter[str] = Counter()
        self.warnings: list[Warned] = []
        self.stopped: str | None = None
        self._loss: dict[str, float] = {}  # newest finite one of each miner
        self._paid: Counter[str] = Counter()
        self._paid_alpha: Counter[str] = Counter()
        self.started_at: float | None = None  # Unix time of the first event
        self._session_at = self._newest_at = 0.0  # Unix times of this process's first event and of the newest event
        self._before_s = 0.0  # seconds that earlier processes worked
        self._counts_before = (0, 0, 0)
        for event in past:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Add the next event."""
        if self.started_at is None:
            self.started_at = self._session_at = self._newest_at = event.t
        if isinstance(event, events.Started):
            self._started(event)
        self._newest_at = max(self._newest_at, event.t)
        change = _CHANGES.get(type(event))
        if change is not None:
            change(self, event)

    def _started(self, event: events.Started) -> None:
        self._before_s = self.clock(self._newest_at)
        self._session_at = self._newest_at = event.t
        self._counts_before = self.extrinsics[-1][1:] if self.extrinsics else (0, 0, 0)
        self.sessions += 1
        self.name, self.seed, self.rounds_planned = event.name, event.seed, event.rounds
        self.stopped = None

    def _phase(self, event: events.Phase) -> None:
        self.phase = event.text

    def _network_up(self, event: events.NetworkUp) -> None:
        self.endpoint, self.netuid, self.spec_version = event.endpoint, event.netuid, event.spec_version
        self.tempo, self.weights_every = event.tempo, event.weights_every
        self.neurons = {neuron.hotkey: neuron for neuron in event.neurons}
        self.setup_rao.update(event.setup_rao)  # of each session: one that resumes adds what it paid

    def _round_done(self, event: RoundDone) -> None:
        self.rounds_planned = event.rounds
        while self.rounds and self.rounds[-1].round >= event.round:
            self.rounds.pop()
        self.rounds.append(event)
        self._loss.update({key: x for key, x in event.losses.items() if x is not None and math.isfinite(x)})

    def _weights_made(self, event: events.WeightsMade) -> None:
        self.weights[event.hotkey] = shares(event.values)

    def _receipt_seen(self, event: events.ReceiptSeen) -> None:
        self.receipts[event.call, event.fate] += 1
        self.fees_rao[event.call] += event.fee_rao
        if event.error:
            self.errors[event.error] += 1
            self.advice[event.error] = event.action or ""
        if "weights" in event.call and event.fate in COUNTING and event.block is not None:
            first, newest = self.weights_set.get(event.signer, (event.block, event.block))
            self.weights_set[event.signer] = min(first, event.block), max(newest, event.block)

    def _block_seen(self, event: events.BlockSeen) -> None:
        self.block, self.tempo, self.blocks_until_epoch = event.block, event.tempo, event.blocks_until_epoch
        self.blocks.append((self.clock(event.t), event.block))

    def _epoch_seen(self, event: EpochSeen) -> None:
        if not self.epochs or self.epochs[-1].block != event.block:
            self.epochs.append(event)
            self._paid.update({key: int(amount) for key, amount in event.emission_rao.items()})
            self._paid_alpha.update({key: int(amount) for key, amount in event.emission_alpha_rao.items()})

    def _extrinsics(self, event: events.Extrinsics) -> None:
        submitted, included, failed = self._counts_before
        now = submitted + event.submitted, included + event.included, failed + event.failed
        self.extrinsics.append((self.clock(event.t), *now))

    def _warned(self, event: Warned) -> None:
        self.warnings.append(event)

    def _stopped(self, event: events.Stopped) -> None:
        self.stopped = event.reason

    def clock(self, t: float) -> float:
        """Seconds of work on the run at Unix time `t` of the newest process."""
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
        """Seconds that the remaining rounds will take, by the mean of the newest five; None before the first."""
        newest = [event.wall_s for event in self.rounds[-5:] if math.isfinite(event.wall_s)]
        if not newest:
            return None
        return max(0, self.rounds_planned - self.round) * sum(newest) / len(newest)

    def counts(self) -> dict[str, int]:
        """Extrinsics submitted, included and failed, over all processes of the run."""
        newest = self.extrinsics[-1][1:] if self.extrinsics else (0, 0, 0)
        return dict(zip(("submitted", "included", "failed"), newest, strict=True))

    def losses(self, hotkey: str) -> list[tuple[int, float]]:
        """[(round, loss)] of a miner, finite ones only."""
        found = ((event.round, event.losses.get(hotkey)) for event in self.rounds)
        return [(number, loss) for number, loss in found if loss is not None and math.isfinite(loss)]

    def time_s(self) -> dict[str, float]:
        """Seconds of the rounds by part, and "outside": start-up and everything else that is no round."""
        columns = zip(*(event.parts_s for event in self.rounds), strict=True)
        sums = [math.fsum(column) for column in columns] or [0.0] * len(PARTS)
        in_rounds = math.fsum(event.wall_s for event in self.rounds)
        return dict(zip(PARTS, sums, strict=True)) | {"outside": max(0.0, self.wall_s - in_rounds)}

    def mean_weights(self) -> dict[str, float]:
        """{miner hotkey: mean share over the validators}; from the mechanism's values before any weights were made."""
        if not self.weights:
            return shares(self.rounds[-1].values) if self.rounds else {}
        total: dict[str, float] = {}
        for row in self.weights.values():
            for hotkey, share in row.items():
                total[hotkey] = total.get(hotkey, 0.0) + share
        return shares(total)

    def rows(self) -> list[Row]:
        """All neurons by uid."""
        weights = self.mean_weights()
        return [self._row(neuron, weights) for neuron in sorted(self.neurons.values(), key=lambda neuron: neuron.uid)]

    def _row(self, neuron: NeuronInfo, weights: Mapping[str, float]) -> Row:
        key, miner = neuron.hotkey, neuron.role == "miner"
        newest = self.rounds[-1] if self.rounds else None
        epoch = self.epochs[-1] if self.epochs else None
        score = newest.values.get(key) if newest else None
        return Row(
            **asdict(neuron),
            standing=newest.standings.get(key, "") if newest else "",
            loss=self._loss.get(key),
            score=score if score is not None and math.isfinite(score) else None,
            weight=(weights.get(key, 0.0) if weights else None) if miner else None,
            incentive=epoch.incentive.get(key, 0.0) if epoch else None,
            dividends=epoch.dividends.get(key, 0.0) if epoch else None,
            validator_trust=epoch.validator_trust.get(key) if epoch and neuron.role == "validator" else None,
            emission_rao=self._paid[key],
            emission_alpha_rao=self._paid_alpha.get(key),
            stake_alpha_rao=epoch.stake_alpha_rao.get(key) if epoch else None,
            weights_block=self.weights_set[key][1] if key in self.weights_set else None,
        )


_CHANGES: dict[type[Event], Callable[[History, Any], None]] = {
    events.Phase: History._phase,
    events.NetworkUp: History._network_up,
    RoundDone: History._round_done,
    events.WeightsMade: History._weights_made,
    events.ReceiptSeen: History._receipt_seen,
    events.BlockSeen: History._block_seen,
    EpochSeen: History._epoch_seen,
    events.Extrinsics: History._extrinsics,
    Warned: History._warned,
    events.Stopped: History._stopped,
}


def shares(values: Mapping[str, float | None]) -> dict[str, float]:
    """Values scaled to sum to 1; all 0 when none is above 0. Those that are not finite or None count as 0."""
    clean = {key: value for key, value in values.items() if value is not None and 0 < value < math.inf}
    total = math.fsum(clean.values())
    return {key: clean.get(key, 0.0) / total if total > 0 else 0.0 for key in values}


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Miners, the best paid first; among equals the lower loss, then the lower uid."""

    def order(row: Row) -> tuple[float, float, float, int]:
        loss = row.loss if row.loss is not None else math.inf
        return (-(row.incentive or 0.0), -(row.weight or 0.0), loss, row.uid)

    return sorted((row for row in rows if row.role == "miner"), key=order)
