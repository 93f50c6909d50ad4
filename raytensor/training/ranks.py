"""The processes that train one model together: their numbers, how they meet, and which rows each of them computes.

In: a rank's number, the number of ranks, the address of the first. Out: a joined process group (gloo on CPUs; NCCL on
GPUs, with gloo for objects). Waits for: all ranks, at most `timeout_s`. Knows nothing of models or of Ray.
"""

import datetime
import os
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from raytensor.errors import RayTensorError
from raytensor.training import devices

T = TypeVar("T")
# Between commands a rank waits for as long as the group lives; a dead peer closes the socket.
IDLE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """One rank's place. The default is a single process without a process group.

    control  gloo group for objects and for waiting between commands; None for a single process.
    saving   another one, for the thread that writes checkpoints.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    control: Any = None
    saving: Any = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """This rank's equal, contiguous share of the rows. Raises `ValueError` when they don't divide."""
        if len(rows) % self.size:
            fix = f"take a multiple of {self.size}"
            raise ValueError(f"{len(rows)} rows can't be shared evenly by {self.size} ranks; {fix}")
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def with_all_rows(self) -> "Ranks":
        """The same process as one that computes all rows of a batch, and not a share of them."""
        return replace(self, rank=0, size=1)

    def on_this_node(self) -> int:
        """Ranks per node. All ranks must call it. 1 where the nodes have different numbers of them."""
        counts = Counter(self.gather(platform.node())).values()
        return min(counts) if len(set(counts)) == 1 else 1

    def broadcast(self, value: Any) -> Any:
        """The first rank's `value`, on every rank. All ranks must call it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def of_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first rank, on every rank. All ranks must call it, and all raise the
        `RayTensorError` or `OSError` that it raises there."""
        found: Any = None
        if self.first:
            try:
                found = work()
            except (RayTensorError, OSError) as error:
                found = error
        found = self.broadcast(found)
        if isinstance(found, (RayTensorError, OSError)):
            raise found
        return found

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value` in order, on every rank. All ranks must call it."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks of a tensor, on every rank. All ranks must call it."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value


def alone(device: str = "cpu") -> Ranks:
    """A single process."""
    return Ranks(device=devices.open_device(device))


def join(
    rank: int,
    size: int,
    address: tuple[str, int],
    device: str = "cpu",
    *,
    timeout_s: float = 120.0,
    collective_timeout_s: float = 600.0,
) -> Ranks:
    """Meet the other ranks at `address` of rank 0. Raises torch's `DistStoreError` when they are late.

    device  "cpu" or "cuda".
    collective_timeout_s  that a collective waits for the other ranks, later.
    """
    host, port = address
    # DeepSpeed reads these; torch does not need them here.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK="0", MASTER_ADDR=host, MASTER_PORT=str(port))
    found = devices.open_device(device)
    # What NCCL keeps of its newest collectives; it writes them to a file when one of them is late.
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", "2000")
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    start = datetime.timedelta(seconds=timeout_s)
    store, *_ = next(rendezvous(f"tcp://{host}:{port}", rank, size, timeout=start))  # waits for all
    limit = datetime.timedelta(seconds=collective_timeout_s)
    dist.init_process_group(devices.backend(found), store=store, timeout=limit, rank=rank, world_size=size)
    return attach(found)


def attach(device: torch.device) -> Ranks:
    """The ranks of the process group that this process has joined already (Ray Train makes one)."""
    devices.use(device)
    control, saving = (dist.new_group(backend="gloo", timeout=IDLE) for _ in range(2))
    return Ranks(dist.get_rank(), dist.get_world_size(), device, control, saving)
