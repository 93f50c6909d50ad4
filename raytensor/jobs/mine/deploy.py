"""Deploys newer models while a miner serves: when a folder that a profile names as its model has changed.

In: the profiles of the miners, the folders on disk. Out: `Fleet.deploy` for the miners of a folder that has changed and
has stayed as it is for `SETTLED_S`. Waits for nothing. Knows nothing of how a model is loaded.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from raytensor.config import Mining
from raytensor.miners.fleet import Fleet
from raytensor.miners.placement import assign_profiles

LOOK_EVERY_S = 2.0
SETTLED_S = 4.0

Prints = Mapping[str, str]  # folder -> what its files were


class Deployer:
    """trained: hotkeys with a model. deployed: of an earlier process, so that what changed meanwhile is deployed.

    deployed     folder -> what its files were when its model was loaded.
    since_round  newest trained round at the last deployment, -1 before the first: later checkpoints have its models.
    """

    def __init__(self, miners: Mining, trained: Sequence[str], fleet: Fleet, deployed: Prints | None) -> None:
        self._fleet, self._looked_at, self.since_round = fleet, 0.0, -1
        self._hotkeys: dict[str, list[str]] = {}
        for hotkey, profile in assign_profiles(miners, trained).items():
            if profile.model and Path(profile.model).is_dir():
                self._hotkeys.setdefault(profile.model, []).append(hotkey)
        self._seen = {folder: (fingerprint(Path(folder)), 0.0) for folder in self._hotkeys}
        known = {} if deployed is None else deployed
        self.deployed: dict[str, str] = {folder: known.get(folder, seen) for folder, (seen, _) in self._seen.items()}

    def look(self, round: int) -> None:
        """Deploy what has changed and has settled. round: the newest that was trained."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        for folder, hotkeys in self._hotkeys.items():
            found, (before, since) = fingerprint(Path(folder)), self._seen[folder]
            if found != before:
                self._seen[folder] = found, now
            elif found and found != self.deployed[folder] and now - since >= SETTLED_S:
                self.deployed[folder], self.since_round = found, round
                self._fleet.deploy(hotkeys)


def fingerprint(folder: Path) -> str:
    """Names, sizes and times of a folder's files; "" when it can't be read."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return ";".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)
    except OSError:
        return ""
