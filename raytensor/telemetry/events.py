"""The events of a job: what happened, in small frozen dataclasses that are kept in `events.jsonl`.

In: values from the parts of a job. Out: one event type for each thing that can happen, the same for all jobs.
The views, the summary, the report and the metrics are made from events only: what is not an event is not shown.
Knows nothing of files (event_log.py), of who makes events and of who reads them. Imports the standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from raytensor.telemetry.redact import redact_text

if TYPE_CHECKING:
    from raytensor.types import Metagraph, Receipt


KINDS: dict[str, type[Event]] = {}  # every event class by its kind; those of miners are in miner_events.py


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `kind`: its name in the file. `t`: Unix time in seconds."""

    kind: ClassVar[str] = ""
    t: float = field(default_factory=time.time, kw_only=True)

    def __init_subclass__(cls) -> None:
        KINDS[cls.kind] = cls


@dataclass(frozen=True, slots=True)
class NeuronInfo:
    """A neuron of a run. role: miner | validator | owner. behaviour: of a miner, else ""."""

    uid: int
    hotkey: str
    role: str
    behaviour: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A process opened the run folder; the first event of each process. rounds: planned."""

    kind: ClassVar[str] = "started"
    name: str
    rounds: int
    seed: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Phase(Event):
    """What the job does now, in words."""

    kind: ClassVar[str] = "phase"
    text: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is wrong, but the job continues. fix: what a person can do."""

    kind: ClassVar[str] = "warned"
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The process leaves the run: "finished", "interrupted", or the error."""

    kind: ClassVar[str] = "stopped"
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkUp(Event):
    """`run`: the chain answers and all neurons are registered. Credentials in the endpoint are redacted.

    weights_every  rounds from one setting of weights to the next; 0 where it was not recorded.
    setup_rao      what the set-up took, in rao of TAO: "fees", "subnet" (its price) and "registrations" (burned).
    """

    kind: ClassVar[str] = "network_up"
    endpoint: str
    netuid: int
    spec_version: int
    tempo: int
    neurons: tuple[NeuronInfo, ...]
    weights_every: int = 0
    setup_rao: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", redact_text(self.endpoint))
        neurons = tuple(n if isinstance(n, NeuronInfo) else NeuronInfo(**n) for n in self.neurons)
        object.__setattr__(self, "neurons", neurons)


@dataclass(frozen=True, slots=True)
class ValidatorUp(Event):
    """`validate`: keys, scorers and chain are ready. hotkeys: {ss58: reference}. `network` is redacted."""

    kind: ClassVar[str] = "validator_up"
    name: str
    network: str
    netuids: tuple[int, ...]
    hotkeys: Mapping[str, str]
    version: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", redact_text(self.network))
        object.__setattr__(self, "netuids", tuple(self.netuids))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundDone(Event):
    """A round of one subnet is logged and reduced, for all validator hotkeys of the job together.

    round, rounds      number of the round; how many are planned, 0 for no limit.
    block              of the metagraph that was played against; 0 where the questions do not come from a block.
    miners             number of miners that could be asked.
    asked, answered, scored   numbers of questions, of answers that came, of answers that have a score.
    failures           {reason: number} of questions without a score.
    wall_s             seconds that the round took; train_s, ask_s, score_s, chain_s, idle_s: its parts, in a `run`.
    losses             {miner hotkey: loss in nats per token, as the mechanism keeps it: by default a moving average}.
    values             {miner hotkey: the mechanism's value}, higher is better.
    standings          {miner hotkey: standing in the mechanism's word, "king" for example}, of the first validator.
    """

    kind: ClassVar[str] = "round_done"
    round: int
    wall_s: float
    netuid: int = 0
    rounds: int = 0
    block: int = 0
    miners: int = 0
    asked: int = 0
    answered: int = 0
    scored: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    train_s: float = 0.0
    ask_s: float = 0.0
    score_s: float = 0.0
    chain_s: float = 0.0
    idle_s: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    standings: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts_s(self) -> tuple[float, ...]:
        """Seconds of training, asking, scoring, the chain, and idling; the order of `history.PARTS`."""
        return self.train_s, self.ask_s, self.score_s, self.chain_s, self.idle_s

    @property
    def scored_per_s(self) -> float:
        """Answers scored per second of asking and scoring; of the whole round where its parts were not measured."""
        return self.scored / max(1e-9, self.ask_s + self.score_s or self.wall_s)


@dataclass(frozen=True, slots=True)
class SubnetFault(Event):
    """`validate`: a round of a subnet failed. It pauses for `rest_s` seconds; the other subnets go on."""

    kind: ClassVar[str] = "subnet_fault"
    netuid: int
    cause: str
    rest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsMade(Event):
    """A validator's weights for the chain writer: values {miner hotkey: weight >= 0}, of any scale.

    round  after which they were made; -1 where it was not recorded.
    block  newest known block at that time.
    """

    kind: ClassVar[str] = "weights_made"
    hotkey: str
    values: Mapping[str, float]
    netuid: int = 0
    round: int = -1
    block: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptSeen(Event):
    """The outcome of one call of one signer. fate: a value of `types.Fate`. fee_rao: paid, in rao of TAO."""

    kind: ClassVar[str] = "receipt_seen"
    call: str
    signer: str
    fate: str
    netuid: int | None = None
    block: int | None = None
    error: str | None = None
    action: str | None = None
    fee_rao: int = 0

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptSeen:
        """The event of a receipt from the chain writer."""
        same = ("call", "signer", "netuid", "block", "error", "action", "fee_rao")
        return cls(fate=receipt.fate.value, **{name: getattr(receipt, name) for name in same})


@dataclass(frozen=True, slots=True)
class WeightsOverdue(Event):
    """`validate`: the chain has had no weights of a hotkey for too long (`overdue`), or has them again."""

    kind: ClassVar[str] = "weights_overdue"
    netuid: int
    hotkey: str
    overdue: bool
    age_tempos: float
    sentence: str


@dataclass(frozen=True, slots=True)
class BlockSeen(Event):
    """The newest block of the chain, and the blocks left of the subnet's tempo."""

    kind: ClassVar[str] = "block_seen"
    block: int
    tempo: int
    blocks_until_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSeen(Event):
    """Consensus ran at `block`.

    incentive, dividends, validator_trust   {hotkey: share in 0..1}.
    emission_rao         {hotkey: value of what this epoch paid, in rao of TAO at the price of that block}.
    emission_alpha_rao   {hotkey: what this epoch paid, in rao of alpha}. As the fields below not in old logs.
    stake_alpha_rao      {hotkey: stake on this subnet, in rao of alpha}.
    alpha_price_rao      rao of TAO for 10^9 rao of alpha.
    """

    kind: ClassVar[str] = "epoch_seen"
    block: int
    incentive: Mapping[str, float]
    dividends: Mapping[str, float]
    emission_rao: Mapping[str, int]
    emission_alpha_rao: Mapping[str, int] = field(default_factory=dict)
    stake_alpha_rao: Mapping[str, int] = field(default_factory=dict)
    validator_trust: Mapping[str, float] = field(default_factory=dict)
    alpha_price_rao: int = 0

    @classmethod
    def of(cls, metagraph: Metagraph) -> EpochSeen:
        """The outcome of the metagraph's last epoch."""

        def by_hotkey(column: Iterable[int]) -> dict[str, int]:
            return {hotkey: int(value) for hotkey, value in zip(metagraph.hotkeys, column, strict=True)}

        def share(column: Iterable[int]) -> dict[str, float]:
            return {hotkey: value / 65535 for hotkey, value in by_hotkey(column).items()}

        paid, price = by_hotkey(metagraph.emission_alpha_rao), metagraph.alpha_price_rao
        worth = {hotkey: alpha * price // 10**9 for hotkey, alpha in paid.items()}
        stakes = by_hotkey(metagraph.stake_alpha_rao)
        shares = {name: share(getattr(metagraph, name)) for name in ("incentive", "dividends", "validator_trust")}
        alpha = {"emission_alpha_rao": paid, "stake_alpha_rao": stakes, "alpha_price_rao": price}
        return cls(block=metagraph.last_epoch_block, emission_rao=worth, **shares, **alpha)


@dataclass(frozen=True, slots=True)
class Extrinsics(Event):
    """Extrinsics that this process has submitted so far, and how many of them were included or failed."""

    kind: ClassVar[str] = "extrinsics"
    submitted: int
    included: int
    failed: int


@dataclass(frozen=True, slots=True)
class TrainStep(Event):
    """`train` reached `step` of `steps`.

    loss     mean training loss since the last such event, nats per token; heldout: held-out loss where it was measured.
    rate     learning rate; eta_s: seconds to go; mfu: model FLOPs utilisation, where the device's peak is known.
    tokens   trained on so far. gradient_norm: of the last step, before it was clipped.
    skipped  steps so far that were left out, since their gradient was not finite.
    heldout_error  standard error of `heldout`, nats per token.
    """

    kind: ClassVar[str] = "train_step"
    step: int
    steps: int
    loss: float
    rate: float
    tokens_per_s: float
    eta_s: float
    ranks: int
    epoch: int = 0
    mfu: float | None = None
    heldout: float | None = None
    tokens: int | None = None
    gradient_norm: float | None = None
    skipped: int = 0
    heldout_error: float | None = None
