"""A subnet's consensus state in one Parquet file: a row per neuron, hyperparameters in the file's metadata.

In: `Snapshot`. Out: a file, and back without loss. Columns: uid uint32 (0 to n - 1 in order), hotkey, coldkey string,
stake_rao, stake_frac uint64, validator_permit bool, last_update, block_at_registration uint64, commit_block uint64
(null without a live commit), previous_consensus uint16 (null where nothing is stored), and for weights and bonds two
lists each in stored order: weight_uids, bond_uids list<uint32>, weight_values, bond_values list<uint16>. Metadata: key
"raytensor.consensus", a JSON object of `FORMAT`, netuid, mecid, source and every scalar field of `EpochInput`; with a
`Subnet` also "subnet" (split, next_epoch_block, emission, accounts), and for mechanism 1 and up the columns
last_update, commit_block, previous_consensus, weights and bonds again with the suffix _1, _2, ... Knows nothing of the
chain's transport.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.emission import Emission, Pots
from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput
from raytensor.consensus.forecast import Subnet
from raytensor.consensus.payout import Accounts
from raytensor.consensus.rows import Rows
from raytensor.errors import ConfigError, DataError

FORMAT = 2
READABLE = (1, FORMAT)  # format 1 has no previous consensus and no fields of Null epochs
KEY = b"raytensor.consensus"
_SAME_NAME = ("stake_frac", "validator_permit", "block_at_registration")  # columns named as fields
_VECTORS = {*_SAME_NAME, "stake", "last_update", "commit_block", "previous_consensus", "weights", "bonds"}
SCALARS = tuple(field.name for field in fields(EpochInput) if field.name not in _VECTORS)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A subnet at one block, with the keys of its neurons.

    hotkeys, coldkeys: ss58 (or any names; hotkeys are distinct), one per uid. inputs: its first mechanism. source: the
    origin, for people. subnet: all mechanisms, emission and accounts, or None if only `inputs` is known.
    Raises ConfigError for names that don't fit the inputs.
    """

    netuid: int
    mecid: int
    hotkeys: tuple[str, ...]
    coldkeys: tuple[str, ...]
    inputs: EpochInput
    source: str = ""
    subnet: Subnet | None = None

    def __post_init__(self) -> None:
        for name in ("hotkeys", "coldkeys"):
            if len(getattr(self, name)) != self.inputs.n:
                raise ConfigError(f"{name}: {len(getattr(self, name))} names; this network has {self.inputs.n}")
        if len(set(self.hotkeys)) != len(self.hotkeys):
            raise ConfigError("hotkeys: one of them is listed twice")

    def uid(self, who: str) -> int:
        """The uid of a hotkey, or of "uid:7". Raises ConfigError for a name that is not in the snapshot."""
        number = who.removeprefix("uid:")
        if number != who and number.isdigit() and int(number) < self.inputs.n:
            return int(number)
        if who in self.hotkeys:
            return self.hotkeys.index(who)
        last = self.inputs.n - 1
        raise ConfigError(f'no neuron "{who}" on subnet {self.netuid}; give a hotkey of it, or uid:0 to uid:{last}')


def write_snapshot(snapshot: Snapshot, path: str | Path) -> None:
    """Write the file; an existing file is replaced."""
    inputs = snapshot.inputs
    meta = {"format": FORMAT, "netuid": snapshot.netuid, "mecid": snapshot.mecid, "source": snapshot.source}
    meta |= {name: getattr(inputs, name) for name in SCALARS}
    columns = {
        "uid": pa.array(np.arange(inputs.n, dtype=np.uint32)),
        "hotkey": pa.array(snapshot.hotkeys, pa.string()),
        "coldkey": pa.array(snapshot.coldkeys, pa.string()),
        "stake_rao": pa.array(inputs.stake),
        **{name: pa.array(getattr(inputs, name)) for name in _SAME_NAME},
    }
    columns |= _mechanism_columns(inputs, "")
    if (subnet := snapshot.subnet) is not None:
        meta["subnet"] = {"split": subnet.split, "next_epoch_block": subnet.next_epoch_block}
        meta["subnet"] |= {"emission": asdict(subnet.emission), "accounts": asdict(subnet.accounts)}
        for mecid, other in enumerate(subnet.mechanisms[1:], 1):
            columns |= _mechanism_columns(other, f"_{mecid}")
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(meta).encode()})
    pq.write_table(table, path, compression="zstd")


def _mechanism_columns(inputs: EpochInput, suffix: str) -> dict[str, pa.Array]:
    """The columns of one mechanism; the first has no suffix."""
    stored = inputs.previous_consensus
    columns = {
        "last_update": pa.array(inputs.last_update),
        "commit_block": pa.array(inputs.commit_block, mask=inputs.commit_block == np.uint64(NO_COMMIT)),
        "previous_consensus": pa.array(stored) if len(stored) else pa.nulls(inputs.n, pa.uint16()),
    }
    for name, rows in (("weight", inputs.weights), ("bond", inputs.bonds)):
        rows = rows.to_rows() if isinstance(rows, DenseRows) else rows
        columns[f"{name}_uids"] = pa.LargeListArray.from_arrays(rows.indptr, pa.array(rows.uids))
        columns[f"{name}_values"] = pa.LargeListArray.from_arrays(rows.indptr, pa.array(rows.values))
    return {name + suffix: column for name, column in columns.items()}


def _mechanism_fields(table: pa.Table, suffix: str) -> dict[str, Any]:
    """The fields of `EpochInput` from the columns of one mechanism."""
    return {
        "last_update": _numbers(table, f"last_update{suffix}"),
        "commit_block": _numbers(table, f"commit_block{suffix}", NO_COMMIT),
        "previous_consensus": _consensus(table, f"previous_consensus{suffix}"),
        "weights": _rows(table, "weight", suffix),
        "bonds": _rows(table, "bond", suffix),
    }


def _subnet(table: pa.Table, inputs: EpochInput, stored: dict | None) -> Subnet | None:
    """The subnet that the metadata and the columns of further mechanisms describe; None for a file without one."""
    if stored is None:
        return None
    others, mecid = [], 1
    while f"last_update_{mecid}" in table.column_names:
        others.append(replace(inputs, **_mechanism_fields(table, f"_{mecid}")))
        mecid += 1
    emission, accounts = dict(stored["emission"]), dict(stored["accounts"])
    emission["pots"] = Pots(**emission["pots"])
    for name in ("hotkeys", "withheld", "root_hotkeys"):
        accounts[name] = None if accounts[name] is None else tuple(accounts[name])
    split = stored["split"] and tuple(stored["split"])
    known = (Emission(**emission), Accounts(**accounts))
    return Subnet((inputs, *others), split, stored["next_epoch_block"], *known)


def read_snapshot(path: str | Path) -> Snapshot:
    """Read a file of `write_snapshot`. Raises DataError for any other or a damaged file."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
    raw = (table.schema.metadata or {}).get(KEY)
    if raw is None:
        raise DataError(f'{path}: no "{KEY.decode()}" metadata, so it is not a consensus snapshot')
    meta = json.loads(raw)
    if (found := meta.pop("format", None)) not in READABLE:
        raise DataError(f"{path}: its format is {found}, not 1 or {FORMAT}; write it again with this version")
    try:
        names = {name: meta.pop(name) for name in ("netuid", "mecid", "source")}
        subnet = meta.pop("subnet", None)
        vectors: dict[str, Any] = {name: _numbers(table, name) for name in _SAME_NAME}
        inputs = EpochInput(**meta, stake=_numbers(table, "stake_rao"), **vectors, **_mechanism_fields(table, ""))
        hotkeys, coldkeys = (tuple(table.column(name).to_pylist()) for name in ("hotkey", "coldkey"))
        if _numbers(table, "uid").tolist() != list(range(table.num_rows)):
            raise DataError(f"{path}: the column uid must count from 0")
        known = {"inputs": inputs, "subnet": _subnet(table, inputs, subnet)}
        return Snapshot(hotkeys=hotkeys, coldkeys=coldkeys, **known, **names)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or unknown field {error}") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error


def _numbers(table: pa.Table, name: str, null: int | None = None) -> np.ndarray:
    array = table.column(name).combine_chunks()
    if null is not None:
        array = array.fill_null(null)
    elif array.null_count:
        raise ConfigError(f"{name}: has {array.null_count} nulls")
    return array.to_numpy(zero_copy_only=False)


def _consensus(table: pa.Table, name: str) -> np.ndarray | None:
    """The stored consensus; None where the file holds none."""
    if name not in table.column_names or table.column(name).null_count == table.num_rows:
        return None
    return _numbers(table, name)


def _rows(table: pa.Table, name: str, suffix: str) -> Rows:
    uids, values = (table.column(f"{name}_{part}{suffix}").combine_chunks() for part in ("uids", "values"))
    lengths = [np.diff(part.offsets.to_numpy()) for part in (uids, values)]
    if uids.null_count or values.null_count or not np.array_equal(*lengths):
        raise ConfigError(f"{name}_uids and {name}_values: the lists differ in length")
    indptr = np.concatenate([[0], np.cumsum(lengths[0])])
    return Rows.checked(indptr, uids.flatten().to_numpy(), values.flatten().to_numpy(), name=f"{name}s")
