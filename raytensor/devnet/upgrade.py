"""Runtime upgrades of the embedded chain: the same pallets under other numbers, to try clients with.

In: the block whose state gets the new code. Out: a runtime with the next spec and transaction version in which every
pallet has an event inserted before its others, and two calls have moved; versions and metadata by block.
As in Subtensor, the block that stores the new code is made by the old runtime, and the next one by the new.
Knows nothing of pools, sockets or the disk.
"""

from dataclasses import dataclass, replace
from typing import Any

from raytensor.devnet.metadata import MetadataWriter
from raytensor.devnet.pallet import CallSpec

INSERTED = "InsertedByUpgrade"  # name of the new event, with the spec version behind it
MOVED = (("Balances", "transfer_keep_alive"), ("SubtensorModule", "set_weights"))
FORMATS = (14, 15)


@dataclass(frozen=True)
class _Past:
    """A runtime up to its last block: `border` is the block in whose state it is replaced."""

    border: int
    version: Any
    metadata: dict[int, bytes]
    events: dict[str, dict[str, tuple[int, Any]]]
    calls: dict[str, dict[str, CallSpec]]


class Upgrades:
    """The versions of one runtime. Its tables of calls and events are changed in place."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._past: list[_Past] = []
        self._metadata: dict[int, bytes] = {}

    @property
    def borders(self) -> list[int]:
        """The blocks in whose state the runtime was replaced."""
        return [past.border for past in self._past]

    @property
    def generation(self) -> tuple[int, ...]:
        """What tells the indices of this runtime's events from those of others; empty for the first one."""
        return (len(self._past),) if self._past else ()

    def metadata(self, version: int, block: int | None = None) -> bytes:
        """Metadata of format 14 or 15 by the state of a block (None: the newest); built at the first call."""
        past = self._of(block)
        if past is not None:
            return past.metadata[version]
        if version not in self._metadata:
            writer = MetadataWriter(self._runtime)
            self._metadata[version] = writer.v14() if version == 14 else writer.v15()
        return self._metadata[version]

    def version(self, block: int) -> Any:
        """The RuntimeVersion by the state of a block."""
        past = self._of(block)
        return self._runtime.version if past is None else past.version

    def apply(self, border: int) -> None:
        """Replace the runtime in the state of block `border`."""
        runtime, pallets = self._runtime, self._runtime.pallets
        self._past.append(
            _Past(
                border,
                runtime.version,
                {version: self.metadata(version) for version in FORMATS},
                {name: dict(pallet.events) for name, pallet in pallets.items()},
                {name: dict(pallet.calls) for name, pallet in pallets.items()},
            )
        )
        old = runtime.version
        new = old._replace(spec_version=old.spec_version + 1, transaction_version=old.transaction_version + 1)
        events, calls = {}, {}
        for name, pallet in pallets.items():
            inserted = {f"{INSERTED}{new.spec_version}": (0, ())} if pallet.events else {}
            events[name] = inserted | {event: (index + 1, types) for event, (index, types) in pallet.events.items()}
            calls[name] = dict(pallet.calls)
        for name, call in MOVED:
            if call in calls.get(name, {}):
                free = max(spec.index for spec in calls[name].values()) + 1
                calls[name][call] = replace(calls[name][call], index=free)
        self._take(new, events, calls)

    def revert(self, number: int) -> None:
        """Undo the upgrades in the states of blocks above `number`."""
        while self._past and self._past[-1].border > number:
            past = self._past.pop()
            self._take(past.version, past.events, past.calls)

    def _of(self, block: int | None) -> _Past | None:
        if block is None:
            return None
        return next((past for past in self._past if block < past.border), None)

    def _take(self, version: Any, events: dict, calls: dict) -> None:
        self._metadata = {}
        for name, pallet in self._runtime.pallets.items():
            pallet.renumber(events[name], calls[name], self.generation)
        self._runtime.renumber(version)
