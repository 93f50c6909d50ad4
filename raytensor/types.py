"""The messages that travel between the stages of a round.

In: nothing. Out: small frozen dataclasses, cheap to pickle, with numpy arrays where numbers are many.
Knows nothing of Ray, torch or the chain's transport. What a payload may hold is declared with `raytensor.payload`.

    Task -> Response | Submission | Failure -> Score | Failure -> Weights -> Receipt;  Metagraph returns from the chain.

A message is never changed after it was made; arrays in it are treated as read-only.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from raytensor.payload import Fields, Payload


class Reason(str, enum.Enum):
    """Why an item left its stage as a `Failure`."""

    TIMEOUT = "timeout"  # no answer before the deadline
    SILENT = "silent"  # the miner declined to answer
    REFUSED = "refused"  # the miner's policy turned the caller away
    MALFORMED = "malformed"  # an answer that breaks the task's bounds (shape, dtype, range, not finite)
    CRASHED = "crashed"  # the item ended the actor that worked on it, on every actor that tried it
    ERROR = "error"  # the work raised; `detail` says what
    CANCELLED = "cancelled"  # the run stopped first
    MECHANISM = "mechanism"  # the mechanism's own code failed on the answer; never the miner's fault


@dataclass(frozen=True, slots=True)
class Task:
    """One question of one validator to one miner.

    kind     "token": predict the token that follows each context. "phrase": name phrases of up to `horizon` tokens that
             may follow. "completion": name continuations of exactly `horizon` tokens. All three are answered by a
             `Response`. "file": hand in the file that was committed to; answered by a `Submission`. A mechanism may
             use kinds of its own; one that it declares in its `schemas` carries a `payload`, and no tokens.
    digest   of the file that is asked for, for kind "file": the one that the chain says the miner committed to.
    tokens   int32 [B, T]: contexts, right-padded with 0; the end of each text is withheld by the validator.
    lengths  int32 [B]: number of real tokens of each row, 1 <= lengths <= T.
    top_k    how many next tokens (or phrases) the answer may name per row; the rest share a floor.
    horizon  tokens of the longest phrase.
    payload  named values; None where the kind has no schema.
    answer   what the payload of the answer must hold; None where the answer has none. It is not sent to the miner.
    """

    task_id: str
    round: int
    netuid: int
    validator: str  # hotkey of the caller (ss58)
    hotkey: str  # hotkey of the miner that is asked (ss58)
    tokens: np.ndarray
    lengths: np.ndarray
    top_k: int
    deadline_s: float
    kind: str = "token"
    horizon: int = 1
    digest: str = ""
    payload: Payload | None = None
    answer: Fields | None = None


def _no_rows(dtype: type) -> np.ndarray:
    return np.zeros((0, 0), dtype)


@dataclass(frozen=True, slots=True)
class Response:
    """A miner's answer to one `Task`: distributions over what follows each context, or a payload.

    ids        int32 [B, K]: distinct token ids of each row, K <= top_k. For "phrase" and "completion" int32 [B, K, L]
               with L <= horizon: phrases, right-padded with -1.
    probs      float32 [B, K]: their probabilities, >= 0, each row's sum <= 1. What is left over is spread
               evenly over the tokens that the row does not name (the floor).
    elapsed_s  the miner's own time for the answer; for telemetry, never for scores.
    payload    named values, as `Task.answer` declares them; then `ids` and `probs` have no rows.
    """

    task_id: str
    hotkey: str
    ids: np.ndarray = field(default_factory=lambda: _no_rows(np.int32))
    probs: np.ndarray = field(default_factory=lambda: _no_rows(np.float32))
    elapsed_s: float = 0.0
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that left its stage without a result. `item_id` is the id it entered with."""

    item_id: str
    hotkey: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FileCommit:
    """What a hotkey committed to before it knew the questions: a file's digest, and the block of the commitment."""

    digest: str  # blake2b-256 of the file, hex
    block: int


@dataclass(frozen=True, slots=True)
class Promises:
    """What the miners of a subnet have committed to, by hotkey, as the chain shows it at one block."""

    block: int
    block_hash: str
    commits: Mapping[str, FileCommit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """A file that a miner hands in: a checkpoint, a compressed update. Nobody parses it where a key is readable.

    digest   blake2b-256 of the file, hex; whoever fetched it has checked it.
    path     where the pool's actors find the file; "" when `payload` holds it.
    """

    task_id: str
    hotkey: str
    digest: str
    path: str = ""
    payload: bytes = b""


# What evidence and state are made of: JSON keeps each of them to the bit. Floats are finite.
Value = float | str | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What one response showed, in the numbers that the mechanism that made it needs to judge it later.

    values  by name; a mechanism says which. "loss", where there is one, is in nats per token.
    group   of responses that were asked for together and are compared with each other; "" when there is none.
    """

    task_id: str
    round: int
    netuid: int
    validator: str
    hotkey: str
    values: Mapping[str, Value]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """One validator's opinion of a subnet, keyed by hotkey: uids are looked up when the extrinsic is planned.

    values: {miner hotkey: weight >= 0}, any scale. `made_at_block`: newest chain block known when it was made.
    """

    netuid: int
    hotkey: str  # the validator's hotkey
    values: dict[str, float]
    made_at_block: int = 0
    mecid: int = 0
    version_key: int = 0


@dataclass(frozen=True, slots=True)
class Metagraph:
    """A subnet as the chain stores it at one block. Arrays have length n and are indexed by uid.

    alpha and rao amounts are integers of 10^-9; u16 columns are the chain's raw values (65535 = 1.0).
    """

    netuid: int
    block: int
    block_hash: str
    tempo: int
    last_epoch_block: int
    next_epoch_block: int
    hotkeys: tuple[str, ...]
    coldkeys: tuple[str, ...]
    axons: tuple[str, ...]  # "ip:port", or "" where none is served
    stake_alpha_rao: np.ndarray  # uint64, alpha that counts for the hotkey here: less its children's, plus its parents'
    validator_permit: np.ndarray  # bool
    active: np.ndarray  # bool
    last_update: np.ndarray  # uint64 block
    block_at_registration: np.ndarray  # uint64 block
    incentive: np.ndarray  # uint16
    dividends: np.ndarray  # uint16
    consensus: np.ndarray  # uint16
    validator_trust: np.ndarray  # uint16
    emission_alpha_rao: np.ndarray  # uint64, paid by the last epoch
    weights: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)  # uid -> ((uid, u16), ...)
    alpha_price_rao: int = 10**9  # rao of TAO for 10^9 rao of alpha
    # uint64, alpha and root stake at TaoWeight: what permits and consensus go by; empty where it was not read
    stake_weight_rao: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))

    def uid(self, hotkey: str) -> int | None:
        """The uid of a hotkey at this block, or None when it is not registered."""
        try:
            return self.hotkeys.index(hotkey)
        except ValueError:
            return None


class Fate(str, enum.Enum):
    """What became of an intent that was handed to the chain actor."""

    INCLUDED = "included"  # in a block, and its own item succeeded
    COMMITTED = "committed"  # weights: their commit is in a block; they count once it is revealed
    REVEALED = "revealed"  # weights: the commit was opened, they count
    HELD = "held"  # weights: accepted, and sent at the first block that allows it
    FAILED = "failed"  # refused by the pool, or in a block with an error of its own
    NOT_SENT = "not_sent"  # a preflight check or a newer intent made sending pointless
    UNKNOWN = "unknown"  # sent, and the chain has not yet said; reconciled later

    @property
    def done(self) -> bool:
        """Whether it has its effect on the chain."""
        return self in (Fate.INCLUDED, Fate.REVEALED)

    @property
    def final(self) -> bool:
        """Whether nothing more will come of it unless it is handed in again."""
        return self.done or self in (Fate.FAILED, Fate.NOT_SENT)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one intent (one call of one signer), whatever extrinsic carried it."""

    intent_id: str
    call: str  # "SubtensorModule.set_weights"
    signer: str  # ss58
    fate: Fate
    netuid: int | None = None
    block: int | None = None
    extrinsic_hash: str | None = None
    error: str | None = None  # metadata name of the error, or the pool's words
    action: str | None = None  # what to do about the error
    fee_rao: int = 0
    until: int | None = None  # block of the next step, as far as it can be told: HELD sent, COMMITTED revealed


@dataclass(frozen=True)
class Memory:
    """Estimated memory of one process at its fullest moment: name -> bytes.

    parts  on its device: the GPU's memory, or the host's where there is no GPU.
    host   the host's beside a GPU.
    """

    parts: Mapping[str, int]
    host: Mapping[str, int] = field(default_factory=dict)

    def of(self, resource: str) -> int:
        """Bytes of "memory" (the host's) or of "gpu_memory"."""
        host, device = (self.host, self.parts) if self.host else (self.parts, {})
        return sum((host if resource == "memory" else device).values())

    def __str__(self) -> str:
        """The total and the parts that count."""
        places = (("GPU memory", self.parts), ("host memory", self.host)) if self.host else (("memory", self.parts),)
        lines = []
        for place, parts in places:
            shown = [f"{name} {size_of(size)}" for name, size in parts.items() if size >= 2**20]
            lines.append(f"{size_of(sum(parts.values()))} of {place} each: {', '.join(shown)}")
        return "; ".join(lines)


def size_of(size: float) -> str:
    """Bytes as text, in MiB or GiB."""
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


@dataclass(frozen=True)
class Need:
    """What one role asks of the cluster: `count` processes with `cpus` and `gpus` each.

    settings  names of the settings that decide it, for refusals.
    memory    of the largest of the processes, where it is known.
    lower     what lowers the memory, for refusals.
    """

    role: str
    count: int
    cpus: float
    gpus: float = 0.0
    settings: str = ""
    memory: Memory | None = None
    lower: str = ""

    @property
    def each(self) -> str:
        """What one process of the role asks for, as text."""
        return f"{self.cpus:g} CPU" + (f" + {self.gpus:g} GPU" if self.gpus else "")

    def of(self, resource: str) -> float:
        """What one process of the role asks of "CPU", "GPU", or in bytes of "memory" or "gpu_memory"."""
        if resource in ("CPU", "GPU"):
            return self.cpus if resource == "CPU" else self.gpus
        return self.memory.of(resource) if self.memory else 0
