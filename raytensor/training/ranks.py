"""The processes that train one model together: who is who, how they meet, and which rows are whose.

In: a rank's number, the number of ranks, where they meet. Out: a joined process group (gloo on CPUs, NCCL on GPUs with
gloo beside it for objects). Waits for: all ranks, at most `timeout_s`. Knows nothing of models or of Ray.
"""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# A rank that has nothing to do waits for its next command as long as the group lives; a dead peer closes the socket.
IDLE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """One rank's place. The default is a process by itself, without a process group.

    control  gloo group for objects and for waiting between commands; None for a process by itself.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    control: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """This rank's equal, contiguous share of the rows. Raises `ValueError` when they don't divide."""
        if len(rows) % self.size:
            raise ValueError(
                f"{len(rows)} rows can't be shared evenly by {self.size} ranks; take a multiple of {self.size}"
            )
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def broadcast(self, value: Any) -> Any:
        """The first rank's `value`, on every rank; all of them must call it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value` in order, on every rank; all of them must call it."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over ranks of a tensor, on every rank; all of them must call it."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value


def alone(device: str = "cpu") -> Ranks:
    """A process by itself."""
    return Ranks(device=_device(device))


def join(rank: int, size: int, address: tuple[str, int], device: str = "cpu", *, timeout_s: float = 120.0) -> Ranks:
    """Meet the other ranks at `address` of rank 0. Raises torch's `DistStoreError` when they don't come in time.

    device  "cpu" or "cuda"; Ray shows each rank its own GPU only, which is device 0 to it.
    """
    host, port = address
    # DeepSpeed reads these; torch does not need them here.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK="0", MASTER_ADDR=host, MASTER_PORT=str(port))
    found = _device(device)
    dist.init_process_group(
        "gloo" if found.type == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=f"tcp://{host}:{port}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=timeout_s),
    )
    return attach(found)


def attach(device: torch.device) -> Ranks:
    """The ranks of the process group that this process is in already (Ray Train makes one)."""
    _use(device)
    return Ranks(dist.get_rank(), dist.get_world_size(), device, dist.new_group(backend="gloo", timeout=IDLE))


def leave() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def free_port() -> int:
    """A TCP port that is free on this machine now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    found = torch.device("cuda", 0)
    _use(found)
    return found


def _use(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # TF32 for what stays in float32; bfloat16 products don't care.
        torch.set_float32_matmul_precision("high")
