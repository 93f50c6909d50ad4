"""Checkpoints that every engine reads, whatever the number of ranks (`saving` writes them).

In: a folder at a local path or an object-store URL. Out: whole tensors by the model's own parameter names. The folder
appears at once; in an object store, engine.json is written last and makes it a checkpoint:

    engine.json                              manifest: parameters and shapes, optimizer, steps, files with sizes and
                                             hashes, and the hash of all that
    model[-00001-of-00002].safetensors       whole parameters in float32, in the file of the rank that wrote them
    optimizer[-00001-of-00002].safetensors   "<parameter>.<moment>" (names of `config.optimizers.MOMENTS`), and
                                             "random.<rank>.<device>"

A parameter is never cut in the files: sharded engines gather one at a time and one rank keeps it. So another engine or
another number of ranks can continue from the same folder, optimizer included. No pickle.
Every byte is covered by a hash: a file that is cut off, changed or missing is found before any state is restored.
Files are hashed side by side, and each by one rank. Those of an object store are copied to a temporary folder of each
rank (TMPDIR) first. Knows nothing of engines. With more than one rank, all ranks must see the folder.
"""

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raytensor.config.optimizers import MOMENTS
from raytensor.errors import DamagedCheckpoint, DataError, cause_of
from raytensor.storage import Folder, open_folder, transfer
from raytensor.training import devices
from raytensor.training.ranks import Ranks

FORMAT = 3
MANIFEST = "engine.json"
MOMENT_NAMES = tuple(dict.fromkeys(name for moments in MOMENTS.values() for name in moments.names))

Shapes = Mapping[str, tuple[int, ...]]
P = TypeVar("P", Path, str)
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


def step_name(step: int) -> str:
    """The name of a step's checkpoint in the folder of a training's checkpoints."""
    return f"step-{step:07d}"


def steps_in(points: Folder) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    if points.appears:
        names = points.folders()
    else:
        names = [name.partition("/")[0] for name in points.names() if name.endswith(f"/{MANIFEST}")]
    found = (re.fullmatch(r"step-(\d+)", name) for name in names)
    return sorted(int(match.group(1)) for match in found if match)


class Reader:
    """An open checkpoint, verified by the constructor.

    rank, of   this rank's number and the number of ranks, each of which verifies a share of the files.

    Raises `DamagedCheckpoint` that names what is missing or damaged, `DataError` when it is of another model or
    optimizer.
    """

    def __init__(
        self, place: Path | str, shapes: Shapes, optimizer: str = "adamw", *, rank: int = 0, of: int = 1
    ) -> None:
        self.place = place
        folder = open_folder(place)
        try:
            manifest = json.loads(folder.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise DataError(_refusal(place, f"it has format {manifest['format']}, this version reads {FORMAT}"))
            if manifest.pop("xxh3") != seal(manifest):
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
            raise DataError(_refusal(place, f"{why}; take {trained_with}"))
        self._same_model({name: tuple(shape) for name, shape in found.items()}, shapes)
        self._copies = None if folder.appears else tempfile.TemporaryDirectory(prefix="checkpoint-")
        self._files = Path(self._copies.name) if self._copies is not None else Path(folder.place)
        names = list(files)
        if self._copies is not None:
            transfer(lambda name: self._fetch(folder, name), names)
        else:
            for name in names:
                self._refuse_cut(name, files[name]["bytes"])
            names = names[rank::of]
        transfer(lambda name: self._verify(name, files[name]), names)
        self._where: dict[str, Any] = {}
        try:
            for name in files:
                opened = safe_open(self._files / name, framework="pt")
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

    def _fetch(self, folder: Folder, name: str) -> None:
        try:
            folder.fetch(name, self._files / name)
        except FileNotFoundError:
            raise self._damage(self._missing(name)) from None

    def _missing(self, name: str) -> str:
        return f"{name} is missing: the part of one of the {self.written_by['ranks']} ranks that wrote it"

    def _refuse_cut(self, name: str, expected: int) -> None:
        path = self._files / name
        if not path.is_file():
            raise self._damage(self._missing(name))
        if (size := path.stat().st_size) != expected:
            raise self._damage(f"{name} is damaged: it has {size} bytes of the {expected} that were written")

    def _verify(self, name: str, entry: Mapping[str, Any]) -> None:
        self._refuse_cut(name, entry["bytes"])
        if _digest(self._files / name) != entry["xxh3"]:
            raise self._damage(f"{name} is damaged: its hash is not the one that was written")

    def _same_model(self, found: Shapes, wanted: Shapes) -> None:
        for name in [*wanted, *found]:
            if found.get(name) != wanted.get(name):
                there = "is not in it" if name not in found else f"has the shape {found[name]} in it"
                here = "is not in this model" if name not in wanted else f"has the shape {wanted[name]} here"
                raise DataError(_refusal(self.place, f"it is of another model: {name} {there} and {here}"))

    def _damage(self, why: str) -> DamagedCheckpoint:
        return DamagedCheckpoint(_refusal(self.place, why))


def read(place: Path | str, shapes: Shapes, ranks: Ranks, optimizer: str) -> Reader:
    """A `Reader`. All ranks call it together. What one rank refuses is refused on all, before any restores a state."""
    found: Reader | None = None
    refusal: DataError | None = None
    try:
        found = Reader(place, shapes, optimizer, rank=ranks.rank, of=ranks.size)
    except DataError as error:
        refusal = error
    refusals = [error for error in ranks.gather(refusal) if error is not None]
    if refusals:
        raise refusals[0]
    assert found is not None
    return found


def load_newest(places: Iterable[P], load: Callable[[P], T]) -> tuple[P, T, list[DamagedCheckpoint]]:
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


def _refusal(place: Path | str, why: str) -> str:
    return f"the checkpoint {place} can't be loaded: {why}"


def seal(manifest: Mapping[str, Any]) -> str:
    """The hash of a manifest, computed without its own hash."""
    return xxhash.xxh3_64_hexdigest(json.dumps(manifest, sort_keys=True).encode())


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
