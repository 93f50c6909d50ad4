"""Trackers: send a run's numbers to wandb, or nowhere.

In: numbers by name, with a step that never decreases. Out: a tracker's own files or service. A tracker that hangs,
fails or has no network never delays or stops a run: wandb runs in a child process (`wandb_child.py`) that is fed
without waiting and is killed when it takes too long. A failure is logged once.
Bounds: `MAX_PENDING_BYTES` for a child that does not read. `round_metrics` chooses the numbers of a `History`.
"""

import json
import logging
import math
import netrc
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from raytensor.config import Tracker as TrackerConfig
from raytensor.telemetry.history import PARTS, History
from raytensor.telemetry.redact import redact

log = logging.getLogger(__name__)

MAX_PENDING_BYTES = 1 << 20  # queued for a tracker that does not read; beyond it lines are dropped
MAX_NAMED_MINERS = 64  # above it only the quantiles of the miners are tracked


class Tracker:
    """Tracks nothing; the interface of all trackers. Neither method raises, or waits longer than it says."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers; returns at once. Steps never decrease; the numbers of one step are merged."""

    def finish(self, timeout_s: float = 5.0) -> None:
        """Wait until all is written, at most `timeout_s` seconds; a second call does nothing."""


class WandbTracker(Tracker):
    """Feeds wandb through a child process.

    cfg       project and mode (offline | online | disabled).
    folder    of the run; wandb writes to `<folder>/wandb/`, its output goes to `<folder>/wandb.log`.
    run_name  name of the run at wandb.
    config    plain containers, shown beside the run; secrets are redacted first.

    process  the child; None once it has ended. pending: what it has not read yet. dropped: lines that were left out.
    """

    def __init__(
        self, cfg: TrackerConfig, folder: Path, run_name: str, config: Mapping[str, Any] | None = None
    ) -> None:
        self._log_file = Path(folder) / "wandb.log"
        self.pending = bytearray()
        self.dropped = 0
        self.process: subprocess.Popen[bytes] | None = None
        command = [sys.executable, "-m", "raytensor.telemetry.wandb_child"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        # In a new session, because Ctrl-C stops the run, which then finishes the tracker.
        start = partial(subprocess.Popen, command, stdin=subprocess.PIPE, env=env, start_new_session=True)
        try:
            with self._log_file.open("ab") as errors:
                self.process = start(stdout=errors, stderr=errors)
        except OSError as error:
            log.warning("wandb can't start, the run goes on without it: %s", error)
            return
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)
        head = {"project": cfg.project, "mode": cfg.mode, "name": run_name, "dir": str(folder)}
        self._send(head | {"config": redact(dict(config or {}))})

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        self._send({"metrics": finite, "step": int(step)})

    def finish(self, timeout_s: float = 5.0) -> None:
        process = self.process
        if process is None:
            return
        assert process.stdin is not None
        deadline = time.monotonic() + timeout_s
        while self.pending and self.process is not None and time.monotonic() < deadline:
            select.select([], [process.stdin], [], max(0.0, min(0.2, deadline - time.monotonic())))
            self._push()
        if self.process is None:
            return
        try:
            process.stdin.close()  # the child finishes at the end of its input
            status = process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._give_up(f"it did not finish within {timeout_s:g} s; `wandb sync` sends what is in its folder")
            return
        if status:
            self._give_up(f"it ended with status {status}")
        elif self.dropped:
            log.warning("wandb was too slow for %d lines of metrics; events.jsonl has them all", self.dropped)
        self.process = None

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.process is None:
            return
        if len(self.pending) > MAX_PENDING_BYTES:
            self.dropped += 1
        else:
            self.pending += json.dumps(message).encode() + b"\n"
        self._push()

    def _push(self) -> None:
        """Write as much as the pipe accepts now."""
        assert self.process is not None and self.process.stdin is not None
        try:
            while self.pending:
                del self.pending[: os.write(self.process.stdin.fileno(), self.pending)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._give_up("its process ended")

    def _give_up(self, what: str) -> None:
        """End the process, and the service that wandb starts, and log why with the last line of its output."""
        process, self.process = self.process, None
        assert process is not None and process.stdin is not None
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(timeout=5.0)
        process.stdin.close()
        printed = [line for line in self._log_file.read_text(errors="replace").splitlines() if line.strip()]
        last = f": {printed[-1]}" if printed else ""
        log.warning("wandb is off, the run goes on without it: %s%s (all of it: %s)", what, last, self._log_file)


def make_tracker(cfg: TrackerConfig, folder: Path, run_name: str, config: Mapping[str, Any] | None = None) -> Tracker:
    """The tracker that a configuration names; online without a key it stays offline and warns."""
    if cfg.kind == "none":
        return Tracker()
    assert cfg.kind == "wandb", cfg.kind
    if cfg.mode == "online" and not _has_key():
        log.warning("wandb has no key (set WANDB_API_KEY, or run `wandb login`); it writes to %s only", folder)
        cfg = TrackerConfig(kind=cfg.kind, project=cfg.project, mode="offline")
    return WandbTracker(cfg, folder, run_name, config)


def round_metrics(history: History) -> dict[str, float]:
    """The numbers of the newest round: pace, time by part, losses, incentive, extrinsics; {} before the first."""
    if not history.rounds:
        return {}
    newest = history.rounds[-1]
    out: dict[str, float | None] = {
        "round/wall_s": newest.wall_s,
        "round/responses": newest.scored,
        "round/responses_per_s": newest.scored_per_s,
        "round/failures": sum(newest.failures.values()),
        **{f"time/{part}_s": seconds for part, seconds in zip(PARTS, newest.parts_s, strict=True)},
        "chain/block": history.block,
        "chain/epochs": len(history.epochs),
        **{f"extrinsics/{key}": value for key, value in history.counts().items()},
    }
    miners = [row for row in history.rows() if row.role == "miner"]
    losses = [row.loss for row in miners if row.loss is not None]
    if losses:
        out |= {"loss/best": min(losses), "loss/median": statistics.median(losses), "loss/worst": max(losses)}
    if len(miners) <= MAX_NAMED_MINERS:
        for row in miners:
            name = row.name or row.hotkey
            out |= {f"loss/{name}": row.loss, f"weight/{name}": row.weight, f"incentive/{name}": row.incentive}
    return {key: float(value) for key, value in out.items() if value is not None and math.isfinite(value)}


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
