"""The shared model in a folder or an object store: a checkpoint every few windows, and the change of each window.

In: the first model; one change per window. Out: the model before any window, bit for bit, from the newest
checkpoint before it and the changes since. Files are written whole; each is checked when it is read.

    model.json                      what is trained: layout, and how to build it
    window-000000.safetensors       the model before window 0, with the outer optimizer's velocity
    change-000000.safetensors       what window 0 subtracted, and the velocity after it if there is momentum

Knows nothing of how a change is computed. Miners and scorers must see the folder, too; of an object store
(s3://BUCKET/PREFIX) they need the right to read only, and compare each object with its hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raytensor.errors import DataError
from raytensor.mechanisms.collab.layout import Layout
from raytensor.storage import open_folder


class Store:
    """A folder with a shared model, at a path or a URL. Raises `DataError` when there is none, or when a file of it is
    damaged."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = open_folder(folder)
        try:
            found = json.loads(self._folder.read("model.json"))
            self.layout = Layout(tuple(found["names"]), tuple(tuple(shape) for shape in found["shapes"]))
            self.model: dict[str, Any] = found["model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"there is no shared model in {folder}: {error}") from error

    @classmethod
    def create(
        cls, folder: Path | str, arrays: Mapping[str, np.ndarray], model: Mapping[str, Any], *, first: int = 0
    ) -> Store:
        """A new store, or the one that is there if it is of the same model. `model` (JSON) says how to build it;
        `first` is the number of the first window."""
        layout = Layout.of(arrays)
        text = json.dumps({"names": layout.names, "shapes": layout.shapes, "model": dict(model)}, indent=1)
        opened = open_folder(folder)
        try:
            there = json.loads(opened.read("model.json"))
        except FileNotFoundError:
            tensors = {"theta": layout.flatten(arrays), "velocity": np.zeros(layout.size, np.float32)}
            opened.write(_name("window", first), save(tensors))
            opened.write("model.json", text.encode())
            return cls(folder)
        if there != json.loads(text):
            fix = f"take another folder, or the settings in {folder}/model.json"
            raise DataError(f"{folder} holds another shared model\n  fix: {fix}")
        return cls(folder)

    def before(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """(model, velocity of the outer optimizer), float32 [size] each, before a window."""
        at = max((n for n in self._numbers("window") if n <= window), default=None)
        if at is None:
            raise DataError(f"{self._folder.place} has no checkpoint at or before window {window}")
        found = self._read(_name("window", at), ("theta", "velocity"))
        theta, velocity = found["theta"], found["velocity"]
        for number in range(at, window):
            found = self._read(_name("change", number), ("change",))
            theta, velocity = theta - found["change"], found.get("velocity", np.zeros_like(theta))
        return theta, velocity

    def append(
        self, window: int, change: np.ndarray, velocity: np.ndarray, *, checkpoint: bool, keep: int = 2
    ) -> np.ndarray:
        """Write what a window subtracts; returns the model after it. Keeps the `keep` newest checkpoints.

        Windows after this one, which an earlier process wrote, are removed.
        """
        self._remove(lambda number: number > window)
        theta = self.before(window)[0] - change
        tensors = {"change": change} | ({"velocity": velocity} if velocity.any() else {})
        self._folder.write(_name("change", window), save(tensors))
        if checkpoint:
            after = save({"theta": theta, "velocity": velocity})
            self._folder.write(_name("window", window + 1), after)
            first = sorted(self._numbers("window"))[-keep:][0]
            self._remove(lambda number: number < first)
        return theta

    def newest(self) -> int:
        """The window that comes next."""
        return max([*self._numbers("window"), *(number + 1 for number in self._numbers("change"))], default=0)

    def _remove(self, unwanted: Callable[[int], bool]) -> None:
        for kind in ("window", "change"):
            for number in filter(unwanted, self._numbers(kind)):
                self._folder.remove(_name(kind, number))

    def _numbers(self, kind: str) -> list[int]:
        found = (re.fullmatch(rf"{kind}-(\d+)\.safetensors", name) for name in self._folder.names())
        return [int(match.group(1)) for match in found if match]

    def _read(self, name: str, tensors: tuple[str, ...]) -> dict[str, np.ndarray]:
        path = f"{self._folder.place}/{name}"
        try:
            found = load(self._folder.read(name))
        except (OSError, SafetensorError, ValueError) as error:
            raise DataError(f"{path} can't be read: {error}") from error
        for tensor in tensors:
            if tensor not in found or found[tensor].shape != (self.layout.size,) or found[tensor].dtype != np.float32:
                raise DataError(f"{path} is damaged: {tensor!r} is not float32 [{self.layout.size}]")
        return found


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:06d}.safetensors"
