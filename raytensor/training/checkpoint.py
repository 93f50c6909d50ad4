"""Checkpoints that every engine writes and reads, whatever the number of ranks.

In: whole tensors by the model's own parameter names, one at a time. Out: a folder that appears at once:

    engine.json                              manifest: parameters and shapes, optimizer, steps, files with sizes and
                                             hashes, and the hash of all that
    model[-00001-of-00002].safetensors       whole parameters in float32, in the file of the rank that wrote them
    optimizer[-00001-of-00002].safetensors   "<parameter>.<moment>" (names of `config.optimizers.MOMENTS`), and
                                             "random.<rank>.<device>"

A parameter is never cut in the files: sharded engines gather one at a time and one rank keeps it. So another engine or
another number of ranks can continue from the same folder, optimizer included. No pickle.
Every byte is covered by a hash: a file that is cut off, changed or missing is found before any state is restored.
Knows nothing of engines. With more than one rank, all ranks must see the folder.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from raytensor import disk
from raytensor.config.optimizers import MOMENTS
from raytensor.errors import DamagedCheckpoint, DataError, cause_of
from raytensor.training import devices
from raytensor.training.ranks import Ranks

FORMAT = 3
MOMENT_NAMES = tuple(dict.fromkeys(name for moments in MOMENTS.values() for name in moments.names))

Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """What a checkpoint is of. skipped: steps among `steps` that were left out, since their gradient was not finite.
    position: what the caller needs to continue, such as the position in its data; JSON."""

    steps: int
    strategy: str
    optimizer: str
    position: Mapping[str, Any] = field(default_factory=dict)
    skipped: int = 0


def step_folder(points: Path, step: int) -> Path:
    """The checkpoint of a step of a training, in the folder of its checkpoints."""
    return points / f"step-{step:07d}"


def steps_in(points: Path) -> list[int]:
    """Steps of the checkpoints in a folder."""
    found = (re.fullmatch(r"step-(\d+)", path.name) for path in points.iterdir()) if points.is_dir() else ()
    return [int(match.group(1)) for match in found if match]


def save(folder: Path, ranks: Ranks, shapes: Shapes, read: Callable[[str], dict[str, Tensor]], origin: Origin) -> None:
    """Write a checkpoint. All ranks call it together; it is complete when it returns.

    shapes  of all trained parameters by name.
    read    gives "param" and, if there are some, the moments of one parameter: whole, in float32. All ranks call it
            for all parameters in the same order.
    """
    owners = _owners(shapes, ranks.size)
    with ExitStack() as stack:
        new = ranks.broadcast(stack.enter_context(disk.new_folder(folder)) if ranks.first else None)
        parameters: dict[str, Tensor] = {}
        others: dict[str, Tensor] = _random_states(ranks)
        for name in shapes:
            values = read(name)
            if owners[name] == ranks.rank:
                parameters[name] = values["param"].contiguous()
                others.update({f"{name}.{key}": values[key].contiguous() for key in MOMENT_NAMES if key in values})
        written = {}
        for kind, tensors in (("model", parameters), ("optimizer", others)):
            path = new / _file(kind, ranks)
            save_file(tensors, path, metadata={"format": "pt"})
            written[path.name] = {"bytes": path.stat().st_size, "xxh3": _digest(path)}
        files = {name: entry for part in ranks.gather(written) for name, entry in part.items()}
        if ranks.first:
            manifest: dict[str, Any] = {
                "format": FORMAT,
                "steps": origin.steps,
                "optimizer": origin.optimizer,
                "written_by": {"strategy": origin.strategy, "ranks": ranks.size},
                "parameters": {name: list(shape) for name, shape in shapes.items()},
                "files": files,
                "position": dict(origin.position),
            }
            if origin.skipped:
                manifest["skipped"] = origin.skipped
            (new / "engine.json").write_text(json.dumps(manifest | {"xxh3": _seal(manifest)}))
    ranks.gather(None)  # no rank continues before the folder is there


class Reader:
    """An open checkpoint, verified by the constructor.

    Raises `DamagedCheckpoint` that names what is missing or damaged, `DataError` when it is of another model or
    optimizer.
    """

    def __init__(self, folder: Path, shapes: Shapes, optimizer: str = "adamw") -> None:
        self.folder = folder
        try:
            manifest = json.loads((folder / "engine.json").read_text())
            if manifest["format"] != FORMAT:
                raise DataError(_refusal(folder, f"it has format {manifest['format']}, this version reads {FORMAT}"))
            if manifest.pop("xxh3") != _seal(manifest):
                raise ValueError("its hash is not the one that was written")
            self.steps, self.position = int(manifest["steps"]), dict(manifest["position"])
            self.skipped = int(manifest.get("skipped", 0))
            found, files, self.written_by = manifest["parameters"], manifest["files"], manifest["written_by"]
            trained_with = manifest["optimizer"]
        except FileNotFoundError:
            raise self._damage("there is no engine.json in it") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damage(f"engine.json is damaged: {error!r}") from error
        if trained_with != optimizer:
            why = f"it was trained with another optimizer ({trained_with}), this one is {optimizer}"
            raise DataError(_refusal(folder, f"{why}; take {trained_with}"))
        self._same_model({name: tuple(shape) for name, shape in found.items()}, shapes)
        for name, entry in files.items():
            path = folder / name
            if not path.is_file():
                ranks = self.written_by["ranks"]
                raise self._damage(f"{name} is missing: the part of one of the {ranks} ranks that wrote it")
            if (size := path.stat().st_size) != entry["bytes"]:
                raise self._damage(f"{name} is damaged: it has {size} bytes of the {entry['bytes']} that were written")
            if _digest(path) != entry["xxh3"]:
                raise self._damage(f"{name} is damaged: its hash is not the one that was written")
        self._where: dict[str, Any] = {}
        try:
            for name in files:
                opened = safe_open(folder / name, framework="pt")
                self._where.update(dict.fromkeys(opened.keys(), opened))
        except (OSError, SafetensorError) as error:
            raise self._damage(cause_of(error)) from error
        missing = [name for name in shapes if name not in self._where]
        if missing:
            raise self._damage(f"the parameter {missing[0]} is in none of its files")

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """ "param" and the moments of one parameter, whole, in float32."""
        found = {"param": self._where[name].get_tensor(name)}
        for key in MOMENT_NAMES:
            if f"{name}.{key}" in self._where:
                found[key] = self._where[f"{name}.{key}"].get_tensor(f"{name}.{key}")
        return found

    def restore_random(self, ranks: Ranks) -> None:
        """Restore this rank's random state, if as many ranks wrote it as there are now; otherwise leave it."""
        start = f"random.{ranks.rank}."
        for key in [key for key in self._where if key.startswith(start) and self.written_by["ranks"] == ranks.size]:
            devices.restore_random_state(key.removeprefix(start), self._where[key].get_tensor(key), ranks.device)

    def _same_model(self, found: Shapes, wanted: Shapes) -> None:
        for name in [*wanted, *found]:
            if found.get(name) != wanted.get(name):
                there = "is not in it" if name not in found else f"has the shape {found[name]} in it"
                here = "is not in this model" if name not in wanted else f"has the shape {wanted[name]} here"
                raise DataError(_refusal(self.folder, f"it is of another model: {name} {there} and {here}"))

    def _damage(self, why: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(_refusal(self.folder, why))


def read(folder: Path, shapes: Shapes, ranks: Ranks, optimizer: str) -> Reader:
    """A `Reader`. All ranks call it together. What one rank refuses is refused on all, before any restores a state."""
    found: Reader | None = None
    refusal: DataError | None = None
    try:
        found = Reader(folder, shapes, optimizer)
    except DataError as error:
        refusal = error
    refusals = [error for error in ranks.gather(refusal) if error is not None]
    if refusals:
        raise refusals[0]
    assert found is not None
    return found


def load_newest(places: Iterable[Path], load: Callable[[Path], T]) -> tuple[Path, T, list[DamagedCheckpoint]]:
    """Load the first intact checkpoint of `places`, which are sorted newest first.

    load  raises `DamagedCheckpoint` for a checkpoint that is not intact, and then has changed nothing.

    Returns its place, what `load` returned, and the errors of the newer ones. Raises `DamagedCheckpoint` with the fix
    when none is intact. Any other error (another model, for example) is raised as it is.
    """
    damaged: list[DamagedCheckpoint] = []
    for place in places:
        try:
            return place, load(place), damaged
        except DamagedCheckpoint as error:
            damaged.append(error)
    reasons = "; ".join(map(str, damaged)) or "there is none"
    fix = "put back a copy of one of them, or begin anew under another name"
    raise DamagedCheckpoint(f"no checkpoint is whole: {reasons}. Fix: {fix}")


def _refusal(folder: Path, why: str) -> str:
    return f"the checkpoint {folder} can't be loaded: {why}"


def _owners(shapes: Shapes, size: int) -> dict[str, int]:
    """The rank that writes each parameter: the largest first, each to the rank that has least to write so far."""
    load, owners = [0] * size, {}
    for name in sorted(shapes, key=lambda name: (-torch.Size(shapes[name]).numel(), name)):
        owners[name] = min(range(size), key=lambda rank: (load[rank], rank))
        load[owners[name]] += torch.Size(shapes[name]).numel()
    return owners


def _file(kind: str, ranks: Ranks) -> str:
    part = "" if ranks.size == 1 else f"-{ranks.rank + 1:05d}-of-{ranks.size:05d}"
    return f"{kind}{part}.safetensors"


def _random_states(ranks: Ranks) -> dict[str, Tensor]:
    return {f"random.{ranks.rank}.{kind}": state for kind, state in devices.random_states(ranks.device).items()}


def _seal(manifest: Mapping[str, Any]) -> str:
    """The hash of a manifest, computed without its own hash."""
    return xxhash.xxh3_64_hexdigest(json.dumps(manifest, sort_keys=True).encode())


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
