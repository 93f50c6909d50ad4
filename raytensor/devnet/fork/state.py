"""The state of a fork: a snapshot in place of the genesis of SubtensorModule, Swap and Commitments.

In: a `StateSnapshot` and accounts to replace. Out: a runtime at the snapshot's block, from which blocks go on.
The development accounts, sudo and all other pallets stay as at the embedded chain's genesis; the accounts of the
snapshot come on top. A subnet of which the snapshot has only the pool has no neurons and no epochs: it takes part in
the division of emission alone. Items that the embedded chain does not have are not restored (`not_restored`); items of
older specs are read by their former names. TAO that the accounts outside of the snapshot hold is not there, so the
ledger (ledger.py) starts anew at this block; issuance, which sets the emission, is the snapshot's.
Knows nothing of blocks and files.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.reads.state_file import StateSnapshot, StoredItem
from raytensor.devnet.fork.values import Reader
from raytensor.devnet.runtime import Runtime
from raytensor.devnet.scale import ScaleError
from raytensor.devnet.storage import Item
from raytensor.devnet.subtensor import shares
from raytensor.devnet.subtensor.ledger import tao_ledger
from raytensor.devnet.subtensor.structs import SafeFloat
from raytensor.errors import ConfigError

REPLACED_PALLETS = ("SubtensorModule", "Swap", "Commitments")
# Alpha shares before spec 430 are U64F64 numbers under these names; the newer item wins where both have an entry.
FORMER_SHARES = {
    "SubtensorModule.Alpha": "SubtensorModule.AlphaV2",
    "SubtensorModule.TotalHotkeyShares": "SubtensorModule.TotalHotkeySharesV2",
}
SHARES = set(FORMER_SHARES.values())


class Fork:
    """What a chain starts from instead of its genesis.

    replaced  account of the snapshot -> the account that takes its place everywhere.
    digest    identifies snapshot and replacements; it is part of the chain's genesis hash, so that nothing that was
              signed for the forked chain is valid here. not_restored: items of the snapshot that have no place here.

    Raises ConfigError for an account that cannot be replaced.
    """

    def __init__(self, snapshot: StateSnapshot, replaced: Mapping[bytes, bytes] | None = None) -> None:
        self.snapshot = snapshot
        self._replaced = dict(replaced or {})
        if snapshot.block < 1:
            raise ConfigError("the snapshot is of block 0; take one of a later block")
        pairs = b"".join(old + new for old, new in sorted(self._replaced.items()))
        self.digest = hashlib.blake2b(bytes.fromhex(snapshot.digest) + pairs, digest_size=32).digest()
        self.not_restored: list[str] = []

    @property
    def block(self) -> int:
        return self.snapshot.block

    def restore(self, runtime: Runtime) -> None:
        """Put the state into a runtime at its genesis. Raises ConfigError for an item that cannot be read."""
        store = runtime.store
        kept = [item for item in store.items.values() if item.pallet not in REPLACED_PALLETS]
        entries = {item.raw_key(key): item.codec.encode(value) for item in kept for key, value in item.current.items()}
        own = {f"{item.pallet}.{item.name}": item for item in store.items.values()}
        reader = Reader(runtime.codecs)
        # former names first: the newer item replaces an entry of the same key
        for name, stored in sorted(self.snapshot.items.items(), key=lambda one: one[0] not in FORMER_SHARES):
            item = own.get(FORMER_SHARES.get(name, name))
            if item is None:
                self.not_restored.append(name)
                continue
            try:
                entries |= self._encoded(reader, item, name, stored)
            except (ValueError, KeyError, TypeError, ScaleError) as error:
                raise ConfigError(
                    f"{name} of the snapshot (spec {self.snapshot.spec_version}) does not fit the embedded chain's "
                    f"{item.decl.type}: {error}"
                ) from error
        store.load(self.block, entries.items())
        runtime.block_number, runtime.timestamp_ms = self.block, runtime.Timestamp.Now.get()
        self._complete(runtime)

    def _encoded(self, reader: Reader, item: Item, name: str, stored: StoredItem) -> dict[bytes, bytes]:
        """Raw keys and values of one item."""
        found, types = {}, [type_ for _, type_ in item.decl.keys]
        for keys, plain in self._with_defaults(reader, item, stored):
            if len(keys) != len(types):
                raise ValueError(f"{len(keys)} keys instead of {len(types)}")
            parts = tuple(self._own_account(reader(type_, key)) for type_, key in zip(types, keys, strict=True))
            if name in FORMER_SHARES:
                value = SafeFloat((reader("U64F64", plain) * shares.UNIT) >> 64, shares.EXPONENT)
            else:
                value = reader(item.decl.type, plain)
            if name in SHARES:
                value = _scaled(value)
            encoded = item.codec.encode(value)
            for old, new in self._replaced.items():
                encoded = encoded.replace(old, new)
            found[item.raw_key(parts[0] if item.single else parts)] = encoded
        return found

    def _with_defaults(self, reader: Reader, item: Item, stored: StoredItem) -> list[tuple[tuple, object]]:
        """The entries; where the snapshot's chain has another default, also the absent ones of values and subnets."""
        if stored.default is None or item.decl.optional or stored.keys not in ((), ("u16",)):
            return stored.entries
        if item.codec.encode(reader(item.decl.type, stored.default)) == item.codec.encode(item.default):
            return stored.entries
        netuids = (*self.snapshot.netuids, *self.snapshot.pools_only)
        wanted = [()] if not stored.keys else [(netuid,) for netuid in netuids]
        known = {keys for keys, _ in stored.entries}
        return stored.entries + [(keys, stored.default) for keys in wanted if keys not in known]

    def _own_account(self, part: object) -> object:
        return self._replaced.get(part, part) if isinstance(part, bytes) else part

    def _complete(self, runtime: Runtime) -> None:
        """What follows from the snapshot: subnets without epochs, the schedule of older chains, the ledger."""
        module = runtime.SubtensorModule
        for netuid in self.snapshot.pools_only:
            module.SubnetworkN.restore(netuid, 0)
            module.Tempo.restore(netuid, 0)
        if "SubtensorModule.LastEpochBlock" not in self.snapshot.items:  # an older schedule, which has no such item
            for netuid in self.snapshot.netuids:
                _, upcoming = epoch_blocks({}, netuid, module.Tempo[netuid], self.block)
                module.LastEpochBlock.restore(netuid, max(upcoming - module.Tempo[netuid], 0))
        module.TotalMinted.restore((), 0)
        module.TotalBurned.restore((), 0)
        ledger = tao_ledger(runtime)
        module.GenesisIssuance.restore((), ledger.total)
        runtime.Balances.TotalIssuance.restore((), ledger.balances)


def _scaled(share: Any) -> Any:
    """A SafeFloat with the exponent that the embedded chain uses, rounded down."""
    shift = share.exponent - shares.EXPONENT
    mantissa = share.mantissa * 10**shift if shift >= 0 else share.mantissa // 10**-shift
    return SafeFloat(mantissa, shares.EXPONENT)
