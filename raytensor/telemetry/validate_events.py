"""The events of the `validate` job, kept in its `events.jsonl` beside those of events.py.

In: what the job's parts tell. Out: small frozen dataclasses. Knows nothing of who makes them or looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from raytensor.telemetry.events import Event
from raytensor.telemetry.redact import redact_text


@dataclass(frozen=True, slots=True)
class ValidatorUp(Event):
    """The job has its keys, its scorers and its chain. hotkeys: {ss58: reference}. Logins in the endpoint are blotted."""

    kind: ClassVar[str] = "validator_up"
    name: str
    network: str
    netuids: tuple[int, ...]
    hotkeys: Mapping[str, str]
    version: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", redact_text(self.network))


@dataclass(frozen=True, slots=True)
class SubnetRound(Event):
    """A round of a subnet is on the disk and reduced. asked, answered, scored: questions of all its hotkeys."""

    kind: ClassVar[str] = "subnet_round"
    netuid: int
    round: int
    block: int
    miners: int
    asked: int
    answered: int
    scored: int
    wall_s: float
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightsHanded(Event):
    """Weights were handed to the chain's writer, which sets them as soon as the chain allows."""

    kind: ClassVar[str] = "weights_handed"
    netuid: int
    hotkey: str
    block: int
    miners: int


@dataclass(frozen=True, slots=True)
class WeightsReceipt(Event):
    """What the writer says of weights; `fate` is a value of `types.Fate`."""

    kind: ClassVar[str] = "weights_receipt"
    netuid: int
    hotkey: str
    fate: str
    block: int | None = None
    error: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class SubnetFault(Event):
    """A subnet failed and rests; the others go on."""

    kind: ClassVar[str] = "subnet_fault"
    netuid: int
    cause: str
    rest_s: float


@dataclass(frozen=True, slots=True)
class WeightsOverdue(Event):
    """The chain has had no weights of a hotkey for too long (overdue), or has them again."""

    kind: ClassVar[str] = "weights_overdue"
    netuid: int
    hotkey: str
    overdue: bool
    age_tempos: float
    sentence: str
