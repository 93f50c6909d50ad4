"""The history of a subnet: a folder with one Parquet file per epoch.

In: metagraphs. Out: files FOLDER/netuid-N[-mechanism-M]/block-NNNNNNNNNN.parquet in the format of `to_arrow`, written
whole; a summary of each file. Knows nothing of connections.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet

from raytensor import disk
from raytensor.chain.reads.metagraph import write_parquet
from raytensor.errors import ConfigError
from raytensor.types import Metagraph


@dataclass(frozen=True, slots=True)
class Epoch:
    """Summary of one file."""

    path: Path
    block: int
    last_epoch_block: int
    num_neurons: int
    stake_alpha_rao: int
    emission_alpha_rao: int


def folder_of(history: Path, netuid: int, mecid: int = 0) -> Path:
    return history / (f"netuid-{netuid}" + (f"-mechanism-{mecid}" if mecid else ""))


def keep_epoch(history: Path, metagraph: Metagraph, mecid: int = 0) -> Path:
    """Write the file of this metagraph's block. Returns its path."""
    folder = folder_of(history, metagraph.netuid, mecid)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"block-{metagraph.block:010d}.parquet"
    buffer = io.BytesIO()
    write_parquet(metagraph, buffer)
    disk.write_bytes(path, buffer.getvalue())
    return path


def epochs(history: Path, netuid: int, mecid: int = 0) -> list[Epoch]:
    """The files of a subnet, oldest first. Raises ConfigError if there are none."""
    folder = folder_of(history, netuid, mecid)
    found = []
    for path in sorted(folder.glob("block-*.parquet")):
        columns = ["stake_alpha_rao", "emission_alpha_rao"]
        table = pyarrow.parquet.read_table(path, columns=columns)
        facts = table.schema.metadata
        sums = [pyarrow.compute.sum(table.column(name)).as_py() or 0 for name in columns]  # pyright: ignore[reportAttributeAccessIssue]  generated at import
        found.append(Epoch(path, int(facts[b"block"]), int(facts[b"last_epoch_block"]), table.num_rows, *sums))
    if not found:
        raise ConfigError(f"{folder} has no snapshots: name the folder that `raytensor metagraph --follow` writes to")
    return found
