"""FSDP2: every rank holds a part of each layer, and gathers a layer while it computes with it.

In: a model on the host. Out: the same model with sharded parameters; tensors of a checkpoint, sharded like a parameter.
Imported only where a model is sharded: torch's distributed tensors take a second to import, which every process that
trains or answers would pay.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(
    model: nn.Module, layers: Iterable[nn.Module], device: torch.device, mesh: tuple[int, ...], *, bf16: bool
) -> None:
    """Shard a model layer by layer. bf16: compute in bfloat16, reduce gradients in float32.

    mesh  (ranks,), or (copies of the model, ranks that each copy is cut over): gradients are summed within a copy's
          ranks, then between copies.
    """
    names = ("copies", "shards")[-len(mesh) :]
    options: dict[str, Any] = {"mesh": init_device_mesh(device.type, mesh, mesh_dim_names=names)}
    if bf16:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    model.to(device)  # buffers


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of a checkpoint, sharded like a parameter. Every rank has read the same file, so nothing is sent."""
    assert isinstance(parameter, DTensor)
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
