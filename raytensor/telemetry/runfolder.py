"""The folder of a run: claimed by one process at a time; its files are replaced whole.

In: `<paths.runs>/<name>/` and whether an earlier run in it is resumed. Out: the paths of the run's files:

    config.yaml    the resolved configuration, secrets redacted; mode 600, as the next two: a key in a form that is
                   not known would stand there
    events.jsonl   one event a line, appended (events.py)
    job.log        log lines and tracebacks
    summary.json   the outcome (summary.py)
    report.html    the outcome for people (report.py)
    state.json     what `resume` starts from; its content belongs to the job
    checkpoints/   content belongs to the job
    .lock          locked while a process works in the folder; holds its pid
    .rayignore     keeps `ray job submit --working-dir` from uploading the folder

Knows nothing of what a run does.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from raytensor.disk import remove_unfinished, write_text
from raytensor.errors import RunError
from raytensor.telemetry.redact import redact


def new_name(runs: Path, now: float | None = None, *, job: str = "run") -> str:
    """A name for a run without one: "run-20261123-004512", with "-2" and so on where that folder exists."""
    base = time.strftime(f"{job}-%Y%m%d-%H%M%S", time.localtime(now))
    name, number = base, 1
    while (Path(runs) / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name


class RunFolder:
    """A claimed run folder; a context manager that releases it.

    path    `<paths.runs>/<name>`; created with its parents.
    resume  never: a folder that holds a run is refused. auto: a run in it is resumed. must: a folder without a saved
            state is refused.
    is_new  whether this object created the folder.

    Raises `RunError` when another process works in the folder, when `resume` forbids what is found, or when the
    folder can't be created.
    """

    def __init__(self, path: Path | str, resume: str = "never") -> None:
        assert resume in ("never", "auto", "must"), resume
        self.path = at = Path(path)
        self.config, self.events, self.state = at / "config.yaml", at / "events.jsonl", at / "state.json"
        self.summary, self.report, self.checkpoints = at / "summary.json", at / "report.html", at / "checkpoints"
        self._lock = -1
        if resume == "must" and not self.state.exists():
            fix = "start it with resume=auto, or check name and paths.runs"
            raise RunError(f"{self.path}: no saved state to resume from; {fix}")
        self.is_new, parent_is_new = not self.path.exists(), not self.path.parent.exists()
        self._created = [self.path] * self.is_new + [self.path.parent] * parent_is_new
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
            if self.is_new:
                (self.path / ".rayignore").write_text("*\n")
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            self.close()
            fix = "set paths.runs to a folder you may write"
            raise RunError(f"{self.path}: can't be a run folder ({error.strerror}); {fix}") from error
        if resume == "never" and (self.events.exists() or self.state.exists()):
            self.close()
            fix = f"take another name, or resume it with `name={self.path.name} resume=auto`"
            raise RunError(f"{self.path}: holds a run already; {fix}")
        remove_unfinished(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def resuming(self) -> bool:
        """Whether there is a saved state to resume from."""
        return self.state.exists()

    def write_config(self, cfg: Any) -> None:
        """Write config.yaml from a configuration dataclass or plain containers, secrets redacted."""
        node = OmegaConf.create(cfg) if isinstance(cfg, (dict, list)) else OmegaConf.structured(cfg)
        plain = redact(OmegaConf.to_container(node, resolve=True))
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(plain)), mode=0o600)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json. Raises `ValueError` for a number that is not finite; write None for it."""
        write_text(self.summary, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state that a later process resumes from; after a crash the old or the new one is there, whole."""
        write_text(self.state, json.dumps(state, ensure_ascii=False, allow_nan=False) + "\n")

    def load_state(self) -> dict[str, Any] | None:
        """The newest saved state, or None. Raises `RunError` when it can't be read."""
        try:
            state = json.loads(self.state.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{self.state}: not readable ({error}); remove the folder or take another name") from error
        if not isinstance(state, dict):
            raise RunError(f"{self.state}: holds no JSON object; remove the folder or take another name")
        return state

    def close(self) -> None:
        """Release the folder; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)  # closing releases the lock, as the end of the process does
            self._lock = -1

    def discard(self) -> None:
        """Release the folder and delete what this object created of it; a folder that was there before stays."""
        self.close()
        if self.is_new:
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._created[1:]:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self) -> None:
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip() or "unknown"
            self.close()
            fix = "wait for it, stop it, or take another name"
            raise RunError(f"{self.path}: another run works in it (process {holder}); {fix}") from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
