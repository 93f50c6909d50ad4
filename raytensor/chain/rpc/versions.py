"""The runtimes of a chain: which one a block belongs to, and its decoded metadata.

In: a function that sends JSON-RPC requests, a block hash. Out: `Runtime`s, read once per process and version; the
events of a block as far as they can be decoded.
A runtime upgrade in block n takes effect in block n + 1, so that a block is decoded by the runtime of its parent.
Waits for: the requests. Bounds: one `Runtime` per version that was met. Knows nothing of sockets.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset

from raytensor.chain.calls import Call
from raytensor.chain.rpc.codec import decode_compact
from raytensor.chain.rpc.events import Event, Outcome, count_items, outcomes
from raytensor.chain.rpc.runtime import Runtime
from raytensor.errors import ChainError

log = logging.getLogger(__name__)

Rpc = Callable[[str, list[Any]], Any]

# (genesis, spec version, transaction version) -> runtime: metadata is read and decoded once per process.
_RUNTIMES: dict[tuple[str, int, int], Runtime] = {}
_DECODING = threading.Lock()  # decoding takes a second of a core: after an upgrade only the first thread does it


@dataclass(frozen=True, slots=True)
class BlockEvents:
    """The events of a block, (index of the extrinsic or None, event) in order, and the runtime that they belong to.

    unreadable  why the events after these can't be decoded, "" if all were.
    """

    events: tuple[tuple[int | None, Event], ...]
    runtime: Runtime
    unreadable: str = ""

    def of(self, index: int) -> list[Event] | None:
        """The events of one extrinsic; None if some of them may be among those that can't be decoded."""
        own = [event for at, event in self.events if at == index]
        if not self.unreadable or (own and self.events[-1][0] != index):
            return own
        return None

    def outcomes(self, call: Call, index: int) -> tuple[Outcome, ...]:
        """One outcome per item of extrinsic `index`, in the order of its call.

        If its events can't be decoded, or are not those of such a call, the effect is unknown: each item is then done
        with the error "OutcomeUnreadable", since doing it twice would be worse.
        """
        events = self.of(index)
        if events is None:
            log.warning("%s: its events can't be decoded: %s", call.name, self.unreadable)
            return unreadable(call)
        try:
            return outcomes(call, events)
        except (ValueError, KeyError, IndexError, TypeError) as error:  # a structure that events.py does not know
            log.warning("%s: its events can't be read: %s", call.name, error)
            return unreadable(call)


def unreadable(call: Call) -> tuple[Outcome, ...]:
    """The outcomes of a call whose events are not there."""
    return (Outcome(True, "OutcomeUnreadable"),) * count_items(call)


def runtime_at(
    rpc: Rpc, genesis: Callable[[], str], block_hash: str | None = None, known: Runtime | None = None
) -> Runtime:
    """The runtime by the state of a block, the best block if None. `known` is returned if it is of that version.

    genesis  returns the hash of block 0; called after a request was answered.

    Raises ChainError if its metadata can't be decoded, and what `rpc` raises.
    """
    at = [] if block_hash is None else [block_hash]
    version = rpc("state_getRuntimeVersion", at)
    spec, transaction = int(version["specVersion"]), int(version["transactionVersion"])
    if known is not None and (spec, transaction) == (known.spec_version, known.transaction_version):
        return known
    version_of = (genesis(), spec, transaction)
    if version_of not in _RUNTIMES:
        raw = rpc("state_getMetadata", at)
        with _DECODING:
            if version_of not in _RUNTIMES:
                _RUNTIMES[version_of] = _decoded(raw, spec, transaction)
    return _RUNTIMES[version_of]


def _decoded(raw: str, spec: int, transaction: int) -> Runtime:
    config = RuntimeConfigurationObject(ss58_format=42)
    config.update_type_registry(load_type_registry_preset("core"))
    try:
        metadata: Any = config.create_scale_object("MetadataVersioned", ScaleBytes(raw))
        metadata.decode()
        return Runtime(metadata.value, spec, transaction)
    except ChainError:
        raise
    except Exception as error:  # scalecodec raises anything, even its own base classes, for bytes that do not fit
        raise ChainError(f"the metadata of runtime {spec} can't be decoded: {type(error).__name__}: {error}") from error


def decode_events(runtime: Runtime, raw: bytes | None) -> BlockEvents:
    """Decode System.Events one by one: those before the first undecodable one are not lost."""
    storage = runtime.storage("System", "Events")
    record_type = runtime.codec.element(storage.value)
    data, found = raw or b"\0", []
    try:
        count, at = decode_compact(data, 0)
        for _ in range(count):
            record, at = runtime.codec.decode_at(record_type, data, at)
            found.append(_event(record))
        if at != len(data):
            raise ValueError(f"{len(data) - at} of {len(data)} bytes left over")
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        why = f"runtime {runtime.spec_version}: event {len(found)} of the block: {error}"
        return BlockEvents(tuple(found), runtime, why)
    return BlockEvents(tuple(found), runtime)


def _event(record: Any) -> tuple[int | None, Event]:
    phase = record["phase"]
    index = phase["ApplyExtrinsic"] if isinstance(phase, dict) else None
    ((module, inner),) = record["event"].items()
    name, data = (inner, None) if isinstance(inner, str) else next(iter(inner.items()))
    return index, Event(module, name, data)
