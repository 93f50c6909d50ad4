"""The neurons of a subnet by one runtime call, SubnetInfoRuntimeApi_get_selective_mechagraph.

In: a netuid and a mechanism; then the undecoded answer. Out: `Graph`, the columns by name: numpy arrays, and addresses
as ss58. Only the columns that are used are requested. The layout is fixed here, since metadata V14 does not describe
runtime APIs. An answer of another layout raises ValueError, and the caller reads storage instead.
Source: pallet subtensor, rpc_info/metagraph.rs, `SelectiveMetagraph`: the netuid, then one Option per field index.
Knows nothing of connections.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from raytensor.chain.rpc.codec import encode_compact
from raytensor.chain.rpc.scale_reader import ScaleReader

METHOD = "SubnetInfoRuntimeApi_get_selective_mechagraph"
_NUM_FIELDS = 73  # indices 1 to 73 follow the netuid
# Field index -> (name, kind of content: a key of _READ).
_FIELDS = {
    7: ("block", "one"),
    8: ("tempo", "one"),
    9: ("last_step", "one"),
    12: ("alpha_in", "one"),
    14: ("tao_in", "one"),
    30: ("num_uids", "one"),
    52: ("hotkeys", "accounts"),
    53: ("coldkeys", "accounts"),
    55: ("axons", "axons"),
    56: ("active", "flags"),
    57: ("validator_permit", "flags"),
    59: ("last_update", "many"),
    60: ("emission", "many"),
    61: ("dividends", "many"),
    62: ("incentive", "many"),
    63: ("consensus", "many"),
    66: ("block_at_registration", "many"),
    67: ("alpha_stake", "many"),
    69: ("total_stake", "many"),
}
_AXON = np.dtype(
    [("block", "<u8"), ("version", "<u4"), ("ip", "<u8", 2), ("port", "<u2")]
    + [(name, "u1") for name in ("ip_type", "protocol", "placeholder1", "placeholder2")]
)

Graph = dict[str, Any]


def arguments(netuid: int, mecid: int) -> bytes:
    """SCALE arguments of the call: netuid u16, mecid u8, Vec<u16> of field indices."""
    wanted = b"".join(index.to_bytes(2, "little") for index in _FIELDS)
    return netuid.to_bytes(2, "little") + bytes((mecid,)) + encode_compact(len(_FIELDS)) + wanted


def decode(data: bytes, netuid: int) -> Graph | None:
    """The columns by name, None if there is no such subnet. Raises ValueError for an answer of another layout."""
    if data[:1] == b"\0" and len(data) == 1:
        return None
    try:
        return _decode(data, netuid)
    except (IndexError, OverflowError) as error:
        raise ValueError(f"the metagraph of subnet {netuid} ends too early or has another layout: {error!r}") from error


def _decode(data: bytes, netuid: int) -> Graph:
    reader = ScaleReader(data, 1)
    if data[0] != 1 or reader.compact() != netuid:
        raise ValueError(f"the answer is not the metagraph of subnet {netuid}")
    found: Graph = {}
    for index in range(1, _NUM_FIELDS + 1):
        if reader.left == 0 and index > max(_FIELDS):
            break  # an older runtime has fewer fields
        present = data[reader.at]
        reader.at += 1
        if present != (index in _FIELDS):
            raise ValueError(f"the metagraph of subnet {netuid} has another layout at field {index}")
        if present:
            name, kind = _FIELDS[index]
            found[name] = _READ[kind](reader)
    if any(data[reader.at :]):  # a newer runtime may have more fields, which were not requested
        raise ValueError(f"the metagraph of subnet {netuid} has {reader.left} bytes too many")
    sizes = {len(column) for column in found.values() if not isinstance(column, int)}
    if sizes != {found["num_uids"]}:
        raise ValueError(f"the columns of subnet {netuid} differ in length: {sizes}, {found['num_uids']} neurons")
    return found


_READ: dict[str, Callable[[ScaleReader], Any]] = {
    "one": ScaleReader.compact,
    "accounts": ScaleReader.accounts,
    "axons": lambda reader: reader.array(_AXON),
    "flags": ScaleReader.flags,
    "many": ScaleReader.compacts,
}
