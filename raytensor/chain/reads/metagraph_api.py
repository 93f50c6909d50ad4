"""A subnet by one runtime call: SubnetInfoRuntimeApi_get_selective_mechagraph, asked for the columns that are used.

In: a netuid, a mechanism; then the undecoded answer. Out: `Graph`, the answer's columns by name: numpy arrays, addresses
as ss58. The layout is fixed here, since metadata V14 does not describe runtime APIs; an answer of another layout is
refused with ValueError, and the caller reads storage instead.
Source: pallet subtensor, rpc_info/metagraph.rs, `SelectiveMetagraph`: the netuid, then one Option per field index.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from raytensor.chain.rpc.codec import account_address, decode_compact, encode_compact

METHOD = "SubnetInfoRuntimeApi_get_selective_mechagraph"
_NUM_FIELDS = 73  # indices 1 to 73 follow the netuid
# Field index -> (name, kind): one = Compact, accounts, axons, flags = Vec<bool>, many = Vec<Compact>.
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
    [
        ("block", "<u8"),
        ("version", "<u4"),
        ("ip", "<u8", 2),
        ("port", "<u2"),
        ("ip_type", "u1"),
        ("protocol", "u1"),
        ("placeholder1", "u1"),
        ("placeholder2", "u1"),
    ]
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
        raise ValueError(f"the metagraph of subnet {netuid} is cut off or laid out differently: {error!r}") from error


def _decode(data: bytes, netuid: int) -> Graph:
    said, at = decode_compact(data, 1)
    if data[0] != 1 or said != netuid:
        raise ValueError(f"the answer is not the metagraph of subnet {netuid}")
    found: Graph = {}
    for index in range(1, _NUM_FIELDS + 1):
        if at == len(data) and index > max(_FIELDS):
            break  # an older runtime has fewer fields
        present, at = data[at], at + 1
        if present != (index in _FIELDS):
            raise ValueError(f"the metagraph of subnet {netuid} is laid out differently at field {index}")
        if present:
            name, kind = _FIELDS[index]
            found[name], at = _READ[kind](data, at)
    if any(data[at:]):  # a newer runtime may have more fields, which were not asked for
        raise ValueError(f"the metagraph of subnet {netuid} has {len(data) - at} bytes too many")
    sizes = {len(column) for column in found.values() if not isinstance(column, int)}
    if sizes != {found["num_uids"]}:
        raise ValueError(f"the columns of subnet {netuid} differ in length: {sizes}, {found['num_uids']} neurons")
    return found


def _accounts(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    count, at = decode_compact(data, at)
    end = _end(data, at, 32 * count)
    return tuple(_address(data[place : place + 32]) for place in range(at, end, 32)), end


def _flags(data: bytes, at: int) -> tuple[np.ndarray, int]:
    count, at = decode_compact(data, at)
    end = _end(data, at, count)
    return np.frombuffer(data, np.uint8, count, at).astype(bool), end


def _axons(data: bytes, at: int) -> tuple[np.ndarray, int]:
    count, at = decode_compact(data, at)
    end = _end(data, at, count * _AXON.itemsize)
    return np.frombuffer(data, _AXON, count, at), end


def _many(data: bytes, at: int) -> tuple[np.ndarray, int]:
    """Vec<Compact>, most of which take one to four bytes."""
    count, at = decode_compact(data, at)
    if count > len(data):
        raise ValueError(f"{count} elements in {len(data)} bytes")
    values = []
    for _ in range(count):
        first = data[at]
        mode = first & 3
        if mode == 0:
            values.append(first >> 2)
            at += 1
        elif mode == 1:
            values.append((first | data[at + 1] << 8) >> 2)
            at += 2
        else:
            value, at = decode_compact(data, at)
            values.append(value)
    return np.array(values, np.uint64), at


def _end(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError(f"{size} bytes at {at} of {len(data)}")
    return at + size


@functools.lru_cache(maxsize=1 << 16)  # neurons stay, blocks pass
def _address(raw: bytes) -> str:
    return account_address(raw)


_READ = {"one": decode_compact, "accounts": _accounts, "axons": _axons, "flags": _flags, "many": _many}
