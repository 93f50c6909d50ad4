"""Reads the state of subnets at one block: all that consensus and emission need, of any runtime.

In: a client, netuids and a block. Out: a `StateSnapshot`. What exists is asked of the metadata of that block: an item
is read by the kinds of its keys (a subnet, a storage index, a uid, an account), so that items of other specs are
found too. Read: plain values; each item per subnet of all subnets (other subnets: single values only, which the
division of emission needs); neurons, weights, bonds, commits; the accounts of the neurons, of their parents, children
and owners with their stakes. Of the nominators' shares only those of a hotkey's owner, unless asked for.
Waits for: the node, about ten requests, at most `timeout_s` of the client each. Knows nothing of files.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

from raytensor.chain.reads.state_file import StateSnapshot, StoredItem
from raytensor.chain.rpc.client import KEYS_PER_PAGE, KEYS_PER_READ, ChainClient
from raytensor.chain.rpc.runtime import Runtime, Storage
from raytensor.errors import ChainError

SUBTENSOR = "SubtensorModule"
PALLETS = (SUBTENSOR, "Swap", "Commitments")
SINGLE_ITEMS = (("System", "Account"), ("Timestamp", "Now"))
ROOT, MECHANISM_STRIDE, MAX_MECHANISMS = 0, 4096, 16
ACCOUNT = "AccountId32"
READ_KINDS = {(), ("u16",), (ACCOUNT,), ("u16", "u16"), ("u16", ACCOUNT), (ACCOUNT, "u16"), ("u16", "u64")}
DEFAULT_KINDS = {(), ("u16",)}  # of these the default matters where nothing is stored
PAIR_KINDS = {(ACCOUNT, ACCOUNT, "u16"), ("u16", ACCOUNT, ACCOUNT)}
# items that a subnet of which only the pool is read must not have, or its epochs would run without neurons
WHOLE_ONLY = {"SubnetworkN", "Tempo"}

Progress = Callable[[str], None]
Wanted = tuple[Storage, tuple]


def read_subnets(
    client: ChainClient,
    netuids: Sequence[int],
    *,
    at: int | None = None,
    nominators: bool = False,
    progress: Progress = lambda text: None,
) -> StateSnapshot:
    """The state of root and of these subnets after block `at` (None: the best block).

    nominators: read the shares of all nominators of the neurons, too.

    Raises ChainError if there is no such subnet, BlockUnknown if the node has no such block or not its state any more.
    """
    block_hash = client.head().hash if at is None else client.block_hash(at)
    head = client.header(block_hash)
    runtime = client.runtime_at(block_hash)
    reading = _Reading(client, runtime, block_hash, tuple(sorted({ROOT, *netuids})))
    progress(f"block {head.number}, spec {runtime.spec_version}")
    others = reading.read_structure()
    progress(f"{reading.num_entries} entries of {len(others) + len(reading.netuids)} subnets")
    reading.read_accounts()
    progress(f"{reading.num_entries} entries with {len(reading.accounts)} accounts")
    reading.read_pairs(nominators)
    return StateSnapshot(
        genesis=client.genesis,
        spec_version=runtime.spec_version,
        block=head.number,
        block_hash=block_hash,
        netuids=reading.netuids,
        pools_only=others,
        left_out=reading.left_out,
        items=reading.items(others),
    )


class _Reading:
    """Storage that is read, in rounds: each round's keys follow from the values of the rounds before."""

    def __init__(self, client: ChainClient, runtime: Runtime, block_hash: str, netuids: tuple[int, ...]) -> None:
        self._client, self._runtime, self._at = client, runtime, block_hash
        self.netuids = netuids
        self.accounts: set[str] = set()
        self.left_out: dict[str, str] = {}
        self._raw: dict[Storage, dict[tuple, bytes]] = {}
        names = [
            (pallet, name) for pallet in PALLETS if pallet in runtime.pallets for name in runtime.storage_names(pallet)
        ]
        names += [(pallet, name) for pallet, name in SINGLE_ITEMS if runtime.has_storage(pallet, name)]
        self._by_kinds: dict[tuple, list[Storage]] = {}
        for pallet, name in names:
            storage = runtime.storage(pallet, name)
            kinds = tuple(str(runtime.codec.kind(key)) for key in storage.keys)
            if kinds in READ_KINDS | PAIR_KINDS:
                self._by_kinds.setdefault(kinds, []).append(storage)
            else:
                self.left_out[f"{pallet}.{name}"] = f"keys ({', '.join(kinds)})"

    @property
    def num_entries(self) -> int:
        return sum(map(len, self._raw.values()))

    def read_structure(self) -> tuple[int, ...]:
        """Everything without accounts in its keys. Returns the netuids of the other subnets."""
        added = self._listed(self._item("NetworksAdded"), ())
        known = sorted(netuid for (netuid,) in added)
        if missing := [netuid for netuid in self.netuids if netuid not in known]:
            raise ChainError(f"there is no subnet {missing[0]} on {self._client.endpoint}: it has {_spans(known)}")
        counts = ("SubnetworkN", "MechanismCountCurrent")
        self._read((self._item(name), (netuid,)) for name in counts if self._has(name) for netuid in self.netuids)
        indices = self.indices
        wanted: list[Wanted] = [(storage, ()) for storage in self._by_kinds.get((), ())]
        wanted += product(self._by_kinds.get(("u16",), ()), [(one,) for one in sorted({*known, *indices})])
        uids = [(index, uid) for index in indices for uid in range(self._size(index % MECHANISM_STRIDE))]
        wanted += product(self._by_kinds.get(("u16", "u16"), ()), uids)
        for storage in self._by_kinds.get(("u16", "u64"), ()):
            wanted += [(storage, params) for index in indices for params in self._listed(storage, (index,))]
        self._read(wanted)
        return tuple(netuid for netuid in known if netuid not in self.netuids)

    @property
    def indices(self) -> list[int]:
        """The storage indices of all mechanisms of the subnets."""
        found = []
        for netuid in self.netuids:
            count = self.value("MechanismCountCurrent", netuid) or 1
            found += [mechanism * MECHANISM_STRIDE + netuid for mechanism in range(min(count, MAX_MECHANISMS))]
        return found

    def read_accounts(self) -> None:
        """What is stored under the neurons' hotkeys, their coldkeys, parents, children and the owners' keys."""
        hotkeys = {self.value("Keys", netuid, uid) for netuid in self.netuids for uid in range(self._size(netuid))}
        owners = ("SubnetOwner", "SubnetOwnerHotkey")
        hotkeys |= {self.value(name, netuid) for name in owners if self._has(name) for netuid in self.netuids}
        self._read_of(hotkeys)
        relatives = {self.value("Owner", hotkey) for hotkey in hotkeys}
        for name in ("ParentKeys", "ChildKeys"):
            if self._has(name):
                found = [self.value(name, hotkey, netuid) or () for hotkey in hotkeys for netuid in self.netuids]
                relatives |= {other for family in found for _, other in family}
        self._read_of(relatives)
        if self._has("AutoStakeDestination"):
            places = product(sorted(self.accounts), self.netuids)
            relatives |= {self.value("AutoStakeDestination", *place) for place in places}
            self._read_of(relatives)
        self._read_of({self.value("Owner", hotkey) for hotkey in relatives - {None}})

    def _read_of(self, accounts: Iterable[str | None]) -> None:
        new = sorted({account for account in accounts if account is not None} - self.accounts)
        self.accounts.update(new)
        indices = sorted({*self.netuids, *self.indices})
        wanted: list[Wanted] = list(product(self._by_kinds.get((ACCOUNT,), ()), [(one,) for one in new]))
        wanted += product(self._by_kinds.get(("u16", ACCOUNT), ()), product(indices, new))
        wanted += product(self._by_kinds.get((ACCOUNT, "u16"), ()), product(new, self.netuids))
        self._read(wanted)

    def read_pairs(self, nominators: bool) -> None:
        """What is stored per hotkey and coldkey: the shares of each hotkey's owner, or of all its nominators."""
        pairs = {(hotkey, owner) for hotkey in sorted(self.accounts) if (owner := self.value("Owner", hotkey))}
        if self._has("AutoStakeDestination"):
            for coldkey, netuid in product(sorted(self.accounts), self.netuids):
                if hotkey := self.value("AutoStakeDestination", coldkey, netuid):
                    pairs.add((hotkey, coldkey))
        if nominators:
            hotkeys = sorted({hotkey for hotkey, _ in pairs})
            shares = [self._item(name) for name in ("AlphaV2", "Alpha") if self._has(name)]
            pairs |= {params[:2] for item in shares for one in hotkeys for params in self._listed(item, (one,))}
            self._read_of({coldkey for _, coldkey in pairs})
        places = list(product(sorted(pairs), self.netuids))
        wanted: list[Wanted] = [
            (s, (*pair, n)) for s in self._by_kinds.get((ACCOUNT, ACCOUNT, "u16"), ()) for pair, n in places
        ]
        wanted += [(s, (n, *pair)) for s in self._by_kinds.get(("u16", ACCOUNT, ACCOUNT), ()) for pair, n in places]
        self._read(wanted)

    def value(self, name: str, *params: Any) -> Any:
        """A value of SubtensorModule that was read; None for an absent one."""
        storage = self._item(name)
        raw = self._raw.get(storage, {}).get(params)
        return None if raw is None else self._runtime.value(storage, raw)

    def items(self, pools_only: tuple[int, ...]) -> dict[str, StoredItem]:
        """The decoded items; of the subnets in `pools_only` without vectors and without a schedule."""
        runtime, found = self._runtime, {}
        for kinds, storage in [(kinds, one) for kinds, several in self._by_kinds.items() for one in several]:
            raw = self._raw.get(storage, {})
            if not raw and kinds not in DEFAULT_KINDS:
                continue
            skipped = set()
            if kinds == ("u16",) and (storage.name in WHOLE_ONLY or self._is_vector(storage)):
                skipped = {(netuid,) for netuid in pools_only}
            entries = [(params, runtime.value(storage, one)) for params, one in raw.items() if params not in skipped]
            default = None if storage.default is None else runtime.value(storage, None)
            found[f"{storage.pallet}.{storage.name}"] = StoredItem(kinds, default, sorted(entries, key=lambda e: e[0]))
        return found

    def _is_vector(self, storage: Storage) -> bool:
        codec = self._runtime.codec
        kind = codec.definition(codec.plain(storage.value))["def"]
        return "sequence" in kind and codec.kind(kind["sequence"]["type"]) != "u8"

    def _has(self, name: str) -> bool:
        return self._runtime.has_storage(SUBTENSOR, name)

    def _item(self, name: str) -> Storage:
        return self._runtime.storage(SUBTENSOR, name)

    def _size(self, netuid: int) -> int:
        return self.value("SubnetworkN", netuid) or 0

    def _read(self, wanted: Iterable[Wanted]) -> None:
        """Read the values of keys, all at the same block; absent ones are not kept."""
        asked = list(wanted)
        for start in range(0, len(asked), KEYS_PER_READ):
            page = asked[start : start + KEYS_PER_READ]
            keys = [self._runtime.key(storage, params) for storage, params in page]
            for (storage, params), raw in zip(page, self._client.query_raw(keys, self._at), strict=True):
                if raw is not None:
                    self._raw.setdefault(storage, {})[params] = raw

    def _listed(self, storage: Storage, known: tuple) -> list[tuple]:
        """The keys of an item that begin with `known`."""
        prefix = "0x" + self._runtime.key(storage, known).hex()
        found, start = [], prefix
        while True:
            page = self._client.rpc("state_getKeysPaged", [prefix, KEYS_PER_PAGE, start, self._at])
            found += [self._runtime.key_params(storage, bytes.fromhex(key[2:])) for key in page]
            if len(page) < KEYS_PER_PAGE:
                return found
            start = page[-1]


def _spans(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
