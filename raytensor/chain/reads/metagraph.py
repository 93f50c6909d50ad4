"""Reads the metagraph of a subnet at one block; writes it as an Arrow table or a Parquet file.

In: a client, a netuid and optionally a block. Out: `raytensor.types.Metagraph`, read at one block hash: the neurons by
one runtime call (metagraph_api.py), and what that call lacks (epoch clock, validator trust, weights) by one storage
read. On runtimes without the call everything is read from storage, in three requests. The vectors of consensus
(incentive, dividends, ...) are those of the last epoch; weights, stake and last_update are live.
Waits for: the answers of the node. Knows nothing of Ray or caches.
"""

import ipaddress
import logging
import os
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow
import pyarrow.parquet

from raytensor.chain.reads import metagraph_api
from raytensor.chain.reads.epochs import epoch_blocks
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.codec import decode_compact
from raytensor.chain.rpc.connection import RpcError
from raytensor.chain.weights import storage_index
from raytensor.errors import ChainError
from raytensor.types import Metagraph

log = logging.getLogger(__name__)

PALLET = "SubtensorModule"
_CLOCK = ("LastEpochBlock", "PendingEpochAt", "SubnetMechanism")
# Vec columns of a subnet: attribute of Metagraph, storage item, dtype, whether it is kept per mechanism.
_VECTORS = (
    ("validator_permit", "ValidatorPermit", bool, False),
    ("active", "Active", bool, False),
    ("last_update", "LastUpdate", np.uint64, True),
    ("incentive", "Incentive", np.uint16, True),
    ("dividends", "Dividends", np.uint16, False),
    ("consensus", "Consensus", np.uint16, False),
    ("validator_trust", "ValidatorTrust", np.uint16, False),
    ("emission_alpha_rao", "Emission", np.uint64, False),
)
_SCALARS = ("NetworksAdded", "SubnetworkN", "Tempo", *_CLOCK, "SubnetTAO", "SubnetAlphaIn")


@dataclass(frozen=True)
class Clock:
    """Values that an epoch changes and the runtime call lacks. last_step: block of the epoch that they belong to."""

    last_step: int
    last_epoch_block: int
    next_epoch_block: int
    mechanism: int
    validator_trust: np.ndarray
    weights: dict[int, tuple[tuple[int, int], ...]]


def read_metagraph(
    client: ChainClient, netuid: int, *, mecid: int = 0, head: Head | None = None, with_weights: bool = True
) -> Metagraph:
    """The subnet at `head` (the best block if None). Raises ChainError if there is no such subnet."""
    head = head or client.head()
    graph = read_graph(client, netuid, mecid, head)
    if graph is None:
        return read_by_storage(client, netuid, mecid=mecid, head=head, with_weights=with_weights)
    return combine(netuid, head, graph, read_clock(client, netuid, mecid, graph, head, with_weights))


def read_graph(client: ChainClient, netuid: int, mecid: int, head: Head) -> metagraph_api.Graph | None:
    """The neurons by one runtime call; None if the runtime has no such call, or its answer has an unknown layout.

    Raises ChainError if there is no such subnet.
    """
    try:
        raw = client.runtime_call(metagraph_api.METHOD, metagraph_api.arguments(netuid, mecid), head.hash)
        graph = metagraph_api.decode(raw, netuid)
    except (RpcError, ValueError) as error:
        log.info("%s: %s; storage is read instead", client.endpoint, error)
        return None
    if graph is None:
        raise ChainError(f"there is no subnet {netuid} at block {head.number} of {client.endpoint}")
    return graph


def read_clock(
    client: ChainClient, netuid: int, mecid: int, graph: metagraph_api.Graph, head: Head, with_weights: bool = False
) -> Clock:
    """Read the values that the runtime call lacks, in one request."""
    runtime, n = client.runtime, graph["num_uids"]
    numbers = [runtime.storage(PALLET, name) for name in _CLOCK if runtime.has_storage(PALLET, name)]
    trust, rows = runtime.storage(PALLET, "ValidatorTrust"), runtime.storage(PALLET, "Weights")
    keys = [runtime.key(item, [netuid]) for item in (*numbers, trust)]
    if with_weights:
        keys += [runtime.key(rows, [storage_index(netuid, mecid), uid]) for uid in range(n)]
    raws = client.query_raw(keys, head.hash)
    values = {item.name: runtime.value(item, raw) for item, raw in zip(numbers, raws)}
    return Clock(
        graph["last_step"],
        *epoch_blocks(values, netuid, graph["tempo"], head.number),
        values.get("SubnetMechanism", 0),
        _of_length(runtime.array(trust, raws[len(numbers)]).astype(np.uint16), n),
        {uid: weight_row(raw) for uid, raw in enumerate(raws[len(numbers) + 1 :]) if raw and raw != b"\0"},
    )


def combine(netuid: int, head: Head, graph: metagraph_api.Graph, clock: Clock) -> Metagraph:
    """The metagraph from both reads."""
    axons = graph["axons"]
    places = dict.fromkeys(range(len(axons)), "")
    for uid in np.flatnonzero(axons["port"]).tolist():
        low, high = axons["ip"][uid].tolist()
        port, ip_type = int(axons["port"][uid]), int(axons["ip_type"][uid])
        places[uid] = axon_text({"ip": low | high << 64, "port": port, "ip_type": ip_type})
    pool = {"SubnetTAO": graph["tao_in"], "SubnetAlphaIn": graph["alpha_in"], "SubnetMechanism": clock.mechanism}
    return Metagraph(
        netuid=netuid,
        block=head.number,
        block_hash=head.hash,
        tempo=graph["tempo"],
        last_epoch_block=clock.last_epoch_block,
        next_epoch_block=clock.next_epoch_block,
        hotkeys=graph["hotkeys"],
        coldkeys=graph["coldkeys"],
        axons=tuple(places.values()),
        stake_alpha_rao=graph["alpha_stake"],
        stake_weight_rao=graph["total_stake"],
        validator_permit=graph["validator_permit"],
        active=graph["active"],
        last_update=graph["last_update"],
        block_at_registration=graph["block_at_registration"],
        incentive=graph["incentive"].astype(np.uint16),
        dividends=graph["dividends"].astype(np.uint16),
        consensus=graph["consensus"].astype(np.uint16),
        validator_trust=clock.validator_trust,
        emission_alpha_rao=graph["emission"],
        weights=clock.weights,
        alpha_price_rao=alpha_price(pool),
    )


def weight_row(raw: bytes) -> tuple[tuple[int, int], ...]:
    """A stored row of weights, Vec<(u16, u16)>."""
    count, at = decode_compact(raw, 0)
    pairs = np.frombuffer(raw, "<u2", 2 * count, at)
    return tuple(zip(pairs[::2].tolist(), pairs[1::2].tolist()))


def read_by_storage(
    client: ChainClient, netuid: int, *, mecid: int = 0, head: Head | None = None, with_weights: bool = True
) -> Metagraph:
    """The subnet from storage alone, in three requests.

    `stake_alpha_rao` is then the own stake of a hotkey, without that of its parents, and `stake_weight_rao` is empty.
    """
    head = head or client.head()
    index = storage_index(netuid, mecid)
    scalar, columns = _read_subnet(client, netuid, index, head.hash)
    n = scalar["SubnetworkN"]
    last_epoch, upcoming = epoch_blocks(scalar, netuid, scalar["Tempo"], head.number)
    if n == 0 and not scalar["NetworksAdded"]:
        raise ChainError(f"there is no subnet {netuid} at block {head.number} of {client.endpoint}")
    by_uid = {"Keys": netuid, "BlockAtRegistration": netuid, **({"Weights": index} if with_weights else {})}
    uids = _read_table(client, {name: [[key, uid] for uid in range(n)] for name, key in by_uid.items()}, head.hash)
    hotkeys = tuple(uids["Keys"])
    by_hotkey = {
        "Owner": [[hotkey] for hotkey in hotkeys],
        "Axons": [[netuid, hotkey] for hotkey in hotkeys],
        "TotalHotkeyAlpha": [[hotkey, netuid] for hotkey in hotkeys],
    }
    neurons = _read_table(client, by_hotkey, head.hash)
    rows = enumerate(uids.get("Weights", ()))
    return Metagraph(
        netuid=netuid,
        block=head.number,
        block_hash=head.hash,
        tempo=scalar["Tempo"],
        last_epoch_block=last_epoch,
        next_epoch_block=upcoming,
        hotkeys=hotkeys,
        coldkeys=tuple(neurons["Owner"]),
        axons=tuple(axon_text(axon) for axon in neurons["Axons"]),
        stake_alpha_rao=np.array(neurons["TotalHotkeyAlpha"], np.uint64),
        block_at_registration=np.array(uids["BlockAtRegistration"], np.uint64),
        weights={uid: tuple(map(tuple, row)) for uid, row in rows if row},
        alpha_price_rao=alpha_price(scalar),
        **{name: _of_length(column, n) for name, column in columns.items()},
    )


def _read_subnet(client: ChainClient, netuid: int, index: int, block_hash: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Numbers of the subnet by the storage names that the runtime has, and columns by attribute."""
    runtime = client.runtime
    names = [name for name in _SCALARS if runtime.has_storage(PALLET, name)]
    numbers = [runtime.storage(PALLET, name) for name in names]
    vectors = [(runtime.storage(PALLET, name), index if own else netuid) for _, name, _, own in _VECTORS]
    keys = [runtime.key(item, [netuid]) for item in numbers] + [runtime.key(item, [key]) for item, key in vectors]
    raws = client.query_raw(keys, block_hash)
    scalar = {name: runtime.value(item, raw) for name, item, raw in zip(names, numbers, raws)}
    found = zip(_VECTORS, vectors, raws[len(numbers) :])
    return scalar, {name: runtime.array(item, raw).astype(dtype) for (name, _, dtype, _), (item, _), raw in found}


def _read_table(client: ChainClient, columns: dict[str, list[list]], block_hash: str) -> dict[str, list]:
    """The values of several maps, storage name -> keys, in one request."""
    items = {name: client.runtime.storage(PALLET, name) for name in columns}
    keys = [client.runtime.key(items[name], params) for name, rows in columns.items() for params in rows]
    raws = iter(client.query_raw(keys, block_hash))
    return {name: [client.runtime.value(items[name], next(raws)) for _ in rows] for name, rows in columns.items()}


def _of_length(column: np.ndarray, n: int) -> np.ndarray:
    """Columns grow with the next epoch: a neuron registered since the last one has zeros."""
    return np.concatenate([column[:n], np.zeros(max(0, n - len(column)), column.dtype)])


def alpha_price(scalar: dict) -> int:
    """rao of TAO for 10^9 rao of alpha by the pool's reserves at equal weights; 10^9 on root and stable subnets.

    An estimate for display: the chain's own price is SwapRuntimeApi_current_alpha_price.
    """
    tao, alpha = scalar.get("SubnetTAO", 0), scalar.get("SubnetAlphaIn", 0)
    if scalar.get("SubnetMechanism", 0) == 0 or alpha == 0:
        return 10**9
    return tao * 10**9 // alpha


def axon_text(axon: dict | None) -> str:
    """ "ip:port" of a stored AxonInfo, "" if none is served (no entry, or port 0)."""
    if axon is None or axon["port"] == 0:
        return ""
    if axon["ip_type"] == 6:
        return f"[{ipaddress.IPv6Address(axon['ip'])}]:{axon['port']}"
    return f"{ipaddress.IPv4Address(axon['ip'] & 0xFFFFFFFF)}:{axon['port']}"


def to_arrow(metagraph: Metagraph) -> pyarrow.Table:
    """One row per neuron; values of the whole subnet are in the schema's metadata."""
    columns: dict[str, Any] = {"uid": np.arange(len(metagraph.hotkeys), dtype=np.uint16)}
    for name in ("hotkeys", "coldkeys", "axons"):
        columns[name.removesuffix("s")] = list(getattr(metagraph, name))
    numbers = ["stake_alpha_rao", "stake_weight_rao", "block_at_registration", *(name for name, *_ in _VECTORS)]
    for name in numbers:
        if len(column := getattr(metagraph, name)) == len(metagraph.hotkeys):
            columns[name] = column
    pair = pyarrow.list_(pyarrow.struct([("uid", pyarrow.uint16()), ("weight", pyarrow.uint16())]))
    by_uid = [metagraph.weights.get(n, ()) for n in range(len(metagraph.hotkeys))]
    rows = [[{"uid": uid, "weight": weight} for uid, weight in row] for row in by_uid]
    table = pyarrow.table({**columns, "weights": pyarrow.array(rows, pair)})
    whole = ("netuid", "block", "block_hash", "tempo", "last_epoch_block", "next_epoch_block", "alpha_price_rao")
    return table.replace_schema_metadata({name: str(getattr(metagraph, name)) for name in whole})


def write_parquet(metagraph: Metagraph, file: str | os.PathLike | IO[bytes]) -> None:
    """Write the table of `to_arrow` as Parquet."""
    pyarrow.parquet.write_table(to_arrow(metagraph), file)
