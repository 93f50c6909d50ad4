"""Writing of checkpoints (see `checkpoint`): a snapshot in host memory, then one shard by each rank, then the manifest.

    Engine.snapshot -> [thread] serialize, hash and write in one pass -> all ranks' parts known -> engine.json

In: whole parameters and moments, one at a time, from all ranks together; a sharded engine gathers one, and the rank
that owns it keeps a copy. Out: a folder at a local path or an object-store URL. Until engine.json is written, and a
local folder renamed into place, there is no checkpoint: a process that is killed leaves the one before.
Waits for: the other ranks, in a process group of its own. Bounds: one snapshot; `Saver.save` waits for the one before.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from raytensor.errors import DataError, RayTensorError, cause_of
from raytensor.storage import Folder, open_folder
from raytensor.training import devices
from raytensor.training.checkpoint import FORMAT, MANIFEST, MOMENT_NAMES, Origin, Shapes, seal
from raytensor.training.ranks import Ranks

BLOCK = 2**22  # bytes that are hashed and written together
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}


@dataclass(frozen=True)
class Snapshot:
    """This rank's part of a checkpoint, in memory that nothing else writes to. tensors: kind ("model", "optimizer")
    -> name -> whole tensor."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    shapes: Shapes
    origin: Origin


def snapshot(ranks: Ranks, shapes: Shapes, read: Callable[[str], dict[str, Tensor]], origin: Origin) -> Snapshot:
    """Copy the state. All ranks call it together.

    shapes  of all trained parameters by name.
    read    gives "param" and, if there are some, the moments of one parameter: whole, in float32, on the CPU. All ranks
            call it for all parameters in the same order.
    """
    owners = _owners(shapes, ranks.size)
    parameters: dict[str, Tensor] = {}
    others = {f"random.{ranks.rank}.{kind}": state for kind, state in devices.random_states(ranks.device).items()}
    for name in shapes:
        values = read(name)
        if owners[name] != ranks.rank:
            continue
        if not devices.is_gpu(ranks.device):  # what is read is the engine's own memory
            values = {key: value.clone(memory_format=torch.contiguous_format) for key, value in values.items()}
        parameters[name] = values["param"].contiguous()
        others.update({f"{name}.{key}": values[key].contiguous() for key in MOMENT_NAMES if key in values})
    return Snapshot({"model": parameters, "optimizer": others}, shapes, origin)


def write(place: Path | str, found: Snapshot, ranks: Ranks) -> None:
    """Write a checkpoint. All ranks call it together; it is complete when it returns.

    Raises on all ranks what one of them could not write, as `OSError` or `DataError`; there is no checkpoint then.
    """
    parent, _, name = str(place).rpartition("/")
    error: Exception | None = None
    try:
        with ExitStack() as stack:
            new = open_folder(
                ranks.of_first(lambda: stack.enter_context(open_folder(parent or ".").staged(name)).place)
            )
            parts = ranks.gather(_write_part(new, found, ranks))
            if failed := next((part for part in parts if isinstance(part, Exception)), None):
                raise failed
            if ranks.first:
                files = {name: entry for part in parts for name, entry in part.items()}
                new.write(MANIFEST, json.dumps(_manifest(found, ranks, files)).encode())
    except (OSError, RayTensorError) as refused:
        error = refused
    # No rank continues before the folder is there.
    if failed := next((other for other in ranks.gather(error) if other is not None), None):
        raise failed


def _write_part(new: Folder, found: Snapshot, ranks: Ranks) -> dict[str, Any] | Exception:
    """Sizes and hashes of the files that this rank has written, or why it could not."""
    written: dict[str, Any] = {}
    try:
        for kind, tensors in found.tensors.items():
            part = "" if ranks.size == 1 else f"-{ranks.rank + 1:05d}-of-{ranks.size:05d}"
            name, digest, sizes = f"{kind}{part}.safetensors", xxhash.xxh3_64(), []
            new.write(name, _hashed(_serialized(tensors), digest, sizes))
            written[name] = {"bytes": sum(sizes), "xxh3": digest.hexdigest()}
    except (OSError, RayTensorError) as error:  # the others wait for this rank's part
        return error
    return written


def _hashed(blocks: Iterable[memoryview], digest: Any, sizes: list[int]) -> Iterator[memoryview]:
    """The blocks as they are; adds them to a hash, and their sizes to a list."""
    for block in blocks:
        digest.update(block)
        sizes.append(len(block))
        yield block


def _manifest(found: Snapshot, ranks: Ranks, files: Mapping[str, Any]) -> dict[str, Any]:
    origin = found.origin
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "steps": origin.steps,
        "optimizer": origin.optimizer,
        "written_by": {"strategy": origin.strategy, "ranks": ranks.size},
        "parameters": {name: list(shape) for name, shape in found.shapes.items()},
        "files": files,
        "position": dict(origin.position),
    }
    if origin.skipped:
        manifest["skipped"] = origin.skipped
    return manifest | {"xxh3": seal(manifest)}


def _serialized(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """The bytes of a safetensors file, in blocks, without a copy of the tensors."""
    # As the library orders them: equal tensors are equal files, aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in ordered:
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        data = memoryview(array) if array.size else memoryview(b"")
        for start in range(0, len(data), BLOCK):
            yield data[start : start + BLOCK]


def _owners(shapes: Shapes, size: int) -> dict[str, int]:
    """The rank that writes each parameter: the largest first, each to the rank that has least to write so far."""
    load, owners = [0] * size, {}
    for name in sorted(shapes, key=lambda name: (-torch.Size(shapes[name]).numel(), name)):
        owners[name] = min(range(size), key=lambda rank: (load[rank], rank))
        load[owners[name]] += torch.Size(shapes[name]).numel()
    return owners


class Saver:
    """Writes checkpoints in a thread while the training goes on. A context manager: leaving it waits for the last one.

    stalled_s  seconds that the training has stood still for checkpoints.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = replace(ranks, control=ranks.saving)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self.stalled_s = 0.0

    def save(self, place: Path | str, take: Callable[[], Snapshot], written: Callable[[], None]) -> None:
        """Take a snapshot and write it. All ranks call it together. Raises what the one before it raised.

        written  called in the thread, when the checkpoint is complete.
        """
        began = time.perf_counter()
        self.wait()
        found = take()
        self._running = self._thread.submit(self._write, place, found, written)
        self.stalled_s += time.perf_counter() - began

    def wait(self) -> None:
        """Wait until the last checkpoint is complete. Raises what writing it raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _write(self, place: Path | str, found: Snapshot, written: Callable[[], None]) -> None:
        try:
            write(place, found, self._ranks)
        except RuntimeError as error:  # torch's, about a rank that is gone
            raise DataError(f"the checkpoint {place} was not written: {cause_of(error)}") from error
        written()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        # An error of the training itself is the one to tell.
        with contextlib.suppress(*((Exception,) if kind is not None else ())):
            self.wait()
        self._thread.shutdown()
