"""The torch device of a process: chosen here and nowhere else.

In: GPUs that an actor reserves, or the name of a device. Out: names ("cpu", "cuda"), prepared torch devices, and what
depends on the kind of device: process-group backends and random states. Ray shows each actor its own GPUs only, so the
device of a process is always number 0 to it.
"""

import torch
from torch import Tensor

GPU_BACKEND = "cpu:gloo,cuda:nccl"  # gloo for objects beside NCCL


def name_for(num_gpus: float) -> str:
    """The device of an actor that reserves `num_gpus` GPUs."""
    return "cuda" if num_gpus > 0 else "cpu"


def visible() -> str:
    """The device that this process has: "cuda" when it sees a GPU."""
    return name_for(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def open_device(name: str) -> torch.device:
    """The device `name`, made the current one."""
    device = torch.device("cpu") if name == "cpu" else torch.device("cuda", 0)
    use(device)
    return device


def use(device: torch.device) -> None:
    """Make a device the current one of this process."""
    if is_gpu(device):
        torch.cuda.set_device(device)
        # TF32 for products that stay in float32; bfloat16 products are not affected.
        torch.set_float32_matmul_precision("high")


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the device of this process can't be used any more: every later call would fail too.
    Running out of memory is no such error."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error) or "NCCL error" in str(error)


def is_gpu(device: torch.device) -> bool:
    """Whether a device is a GPU."""
    return device.type == "cuda"


def backend(device: torch.device) -> str:
    """Back end of `torch.distributed` for ranks on this kind of device."""
    return GPU_BACKEND if is_gpu(device) else "gloo"


def random_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's random generators, by kind of device: "cpu", and "cuda" on a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if is_gpu(device):
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(kind: str, state: Tensor, device: torch.device) -> None:
    """Set one of the generators of `random_states`; a GPU's state is ignored on a CPU."""
    if kind == "cpu":
        torch.set_rng_state(state)
    elif is_gpu(device):
        torch.cuda.set_rng_state(state)
