"""Tensor parallelism: each rank holds some heads of the attention and a part of the feed-forward's width of each layer.

In: a Llama-like model on the host. Out: the same model with the layers' matrices cut over the ranks, by columns and
then by rows (Shoeybi et al. 2019, arXiv 1909.08053); embeddings and norms stay whole. All ranks compute the same rows.
Imported only where a model is cut so, as `fully_sharded`.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from raytensor.training.causal import layers
from raytensor.training.models import refuse_uncuttable

COLUMNS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
ROWS = ("self_attn.o_proj", "mlp.down_proj")


def cut(model: nn.Module, device: torch.device, ranks: int) -> None:
    """Cut a model over `ranks` ranks."""
    refuse_uncuttable(model, ranks)
    model.to(device)
    mesh, plan = init_device_mesh(device.type, (ranks,)), {}
    plan |= {name: ColwiseParallel() for name in COLUMNS} | {name: RowwiseParallel() for name in ROWS}
    for layer in layers(model):
        parallelize_module(layer, mesh, plan)


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of a checkpoint, cut like a parameter. Every rank has read the same file, so nothing is sent."""
    if not isinstance(parameter, DTensor):
        return value.to(parameter.device, parameter.dtype, copy=True)
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)
