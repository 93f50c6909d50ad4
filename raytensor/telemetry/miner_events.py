"""The events of `raytensor mine`.

In: values from its parts. Out: event types, as those of events.py. Knows nothing of files or of who reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from raytensor.telemetry.events import Event
from raytensor.telemetry.redact import redact_text


@dataclass(frozen=True, slots=True)
class MinerUp(Event):
    """`mine`: the miners are served. hotkeys: {ss58: reference}; addresses: {ss58: "ip:port"}; network: redacted."""

    kind: ClassVar[str] = "miner_up"
    name: str
    network: str
    netuids: tuple[int, ...]
    hotkeys: Mapping[str, str]
    addresses: Mapping[str, str]
    version: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", redact_text(self.network))
        object.__setattr__(self, "netuids", tuple(self.netuids))


@dataclass(frozen=True, slots=True)
class MinerRound(Event):
    """`mine`: a round of training ended. losses: {hotkey: mean training loss, nats per token}."""

    kind: ClassVar[str] = "miner_round"
    round: int
    wall_s: float
    losses: Mapping[str, float]


@dataclass(frozen=True)
class Standing:
    """A hotkey's place on a subnet at one block.

    uid                 None: not registered (any more); the numbers are then 0.
    rank                1 is the best paid of `num_miners`; 0 without incentive.
    incentive           share, 0 to 1. emission_alpha_rao: paid by the last epoch, in rao of alpha.
    immune_blocks       blocks of immunity left.
    replaced_in         registrations until this neuron is replaced; None: not in sight.
    axon                "ip:port" on the chain, "" for none.
    """

    netuid: int
    hotkey: str
    block: int
    uid: int | None = None
    rank: int = 0
    num_miners: int = 0
    incentive: float = 0.0
    emission_alpha_rao: int = 0
    immune_blocks: int = 0
    replaced_in: int | None = None
    axon: str = ""


@dataclass(frozen=True, slots=True)
class StandingSeen(Standing, Event):
    """`mine`: a hotkey's place on a subnet, after each epoch and when it changed."""

    kind: ClassVar[str] = "standing_seen"


@dataclass(frozen=True, slots=True)
class TrafficSeen(Event):
    """`mine`: requests so far. outcomes: {"ok" or the name of the refusal: number}; callers: {validator: questions}."""

    kind: ClassVar[str] = "traffic_seen"
    outcomes: Mapping[str, int]
    callers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MinerAlarm(Event):
    """`mine`: an alarm began (`on`) or ended. about: "registration", "pruning", "axon", "reach" or "chain"."""

    kind: ClassVar[str] = "miner_alarm"
    about: str
    on: bool
    sentence: str
    netuid: int = 0
    hotkey: str = ""
