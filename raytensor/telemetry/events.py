"""The events of a run, and the file that keeps them: one JSON object a line, appended as they happen.

In: small frozen dataclasses made by the parts of a run. Out: the same dataclasses, read back from `events.jsonl`.
The file is the only thing that the console, the summary and the report are made from, so what is not an event does
not show. Knows nothing of who makes events or looks at them, and imports nothing beyond the standard library.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raytensor.errors import DataError
from raytensor.telemetry.redact import redact_text

if TYPE_CHECKING:
    from raytensor.types import Receipt


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `t`: unix seconds at which it happened."""

    kind: ClassVar[str] = ""
    t: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True, slots=True)
class NeuronInfo:
    """A neuron as the run knows it. `role`: miner | validator | owner; `behaviour`: of a miner, "" otherwise."""

    uid: int
    hotkey: str
    role: str
    behaviour: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A process took the run folder; the first event of each of them. `seed`, `version`: for the report's header."""

    kind: ClassVar[str] = "started"
    name: str
    rounds: int
    seed: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Phase(Event):
    """What the run is doing now, in words for a person."""

    kind: ClassVar[str] = "phase"
    text: str


@dataclass(frozen=True, slots=True)
class NetworkUp(Event):
    """The chain answers and all neurons are registered. Credentials in the endpoint are blotted out."""

    kind: ClassVar[str] = "network_up"
    endpoint: str
    netuid: int
    spec_version: int
    tempo: int
    neurons: tuple[NeuronInfo, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", redact_text(self.endpoint))
        neurons = tuple(n if isinstance(n, NeuronInfo) else NeuronInfo(**n) for n in self.neurons)
        object.__setattr__(self, "neurons", neurons)


@dataclass(frozen=True, slots=True)
class RoundDone(Event):
    """A round is over.

    round       from 1 to `rounds`.
    wall_s      the round's wall time; train_s, ask_s, score_s, chain_s, idle_s: the parts of it.
    responses   answers that were scored; failures: {reason: number} of those that were not.
    losses      {miner hotkey: held-out loss as the mechanism keeps it (a moving average, or the newest), nats per token}.
    standings   {miner hotkey: where it stands, in the mechanism's word ("king"), as the first validator sees it}.
    values      {miner hotkey: the mechanism's value of it}, higher is better.
    """

    kind: ClassVar[str] = "round_done"
    round: int
    rounds: int
    wall_s: float
    train_s: float = 0.0
    ask_s: float = 0.0
    score_s: float = 0.0
    chain_s: float = 0.0
    idle_s: float = 0.0
    responses: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    responses_per_s: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    standings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightsMade(Event):
    """One validator (`hotkey`) made up its mind: {miner hotkey: weight >= 0}, any scale."""

    kind: ClassVar[str] = "weights_made"
    round: int
    hotkey: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReceiptSeen(Event):
    """What became of one call of one signer; `fate` is a value of `types.Fate`, the fee is in rao."""

    kind: ClassVar[str] = "receipt_seen"
    call: str
    signer: str
    fate: str
    block: int | None = None
    error: str | None = None
    action: str | None = None
    fee_rao: int = 0

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptSeen:
        """The event of a receipt that the chain actor reported."""
        return cls(
            call=receipt.call,
            signer=receipt.signer,
            fate=receipt.fate.value,
            block=receipt.block,
            error=receipt.error,
            action=receipt.action,
            fee_rao=receipt.fee_rao,
        )


@dataclass(frozen=True, slots=True)
class BlockSeen(Event):
    """The chain's newest block, and how many blocks are left of the subnet's tempo."""

    kind: ClassVar[str] = "block_seen"
    block: int
    tempo: int
    blocks_until_epoch: int


@dataclass(frozen=True, slots=True)
class EpochSeen(Event):
    """Consensus ran at `block`: {hotkey: share in 0..1} of incentive and dividends, {hotkey: rao} paid by it."""

    kind: ClassVar[str] = "epoch_seen"
    block: int
    incentive: Mapping[str, float]
    dividends: Mapping[str, float]
    emission_rao: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Extrinsics(Event):
    """Extrinsics of this process so far; each of the submitted ends as included, failed or not yet known."""

    kind: ClassVar[str] = "extrinsics"
    submitted: int
    included: int
    failed: int


@dataclass(frozen=True, slots=True)
class TrainStep(Event):
    """`raytensor train` came to `step`: the mean loss since the last such event (nats per token), the learning rate, the
    pace, seconds to go; `mfu`: model-FLOPs utilisation, `heldout`: held-out loss; null where not measured."""

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


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is wrong but the run goes on; `fix` is what a person can do."""

    kind: ClassVar[str] = "warned"
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The process is done with the run: "finished", "interrupted", or the error."""

    kind: ClassVar[str] = "stopped"
    reason: str


KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        Started,
        Phase,
        NetworkUp,
        RoundDone,
        WeightsMade,
        ReceiptSeen,
        BlockSeen,
        EpochSeen,
        Extrinsics,
        TrainStep,
        Warned,
        Stopped,
    )
}


# ------------------------------------------------------------------------------------------------------------ lines


def to_line(event: Event) -> str:
    """The event as one line of JSON, without the line's end. Numbers that are not finite are written as null."""
    body = {"kind": event.kind, "t": event.t}
    for item in dataclasses.fields(event):
        body[item.name] = _plain(getattr(event, item.name))
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_line(line: str) -> Event | None:
    """The event of a line; None for a kind that this version does not know. Fields it does not know are dropped.

    Raises `ValueError` for a line that is not an event: no JSON object, or a field is missing.
    """
    body = json.loads(line)
    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
        raise ValueError("no JSON object with a 'kind'")
    cls = KINDS.get(body.pop("kind"))
    if cls is None:
        return None
    known = {item.name: item for item in dataclasses.fields(cls)}
    try:
        return cls(**{name: _filled(value, known[name].type) for name, value in body.items() if name in known})
    except TypeError as error:
        raise ValueError(str(error)) from error


class EventLog:
    """Appends events to a file. Each is handed to the system in one write, so `kill -9` loses none.

    path  the file; a torn last line, which a full disk or a crash of the machine leaves, is cut off on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        _cut_torn_line(self.path)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, event: Event) -> None:
        """Write one event. Raises `OSError` when the disk is full."""
        data = (to_line(event) + "\n").encode()
        written = os.write(self._fd, data)
        while written < len(data):
            written += os.write(self._fd, data[written:])

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: Path) -> list[Event]:
    """All events of a file in order; a last line without its end is not yet written and is left out.

    Raises `DataError` when the file is missing or another line of it is no event.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: no events to read ({error.strerror}); name the folder of a run") from error
    found: list[Event] = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            event = from_line(line.decode())
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: not an event ({error}); remove the line to read the rest"
            ) from error
        if event is not None:
            found.append(event)
    return found


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _filled(value: Any, annotation: Any) -> Any:
    """Undo the null that stands for a number that is not finite."""
    if value is None and annotation == "float":
        return math.nan
    if isinstance(value, dict) and "float" in str(annotation):
        return {key: math.nan if item is None else item for key, item in value.items()}
    return value
