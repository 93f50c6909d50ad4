"""`raytensor validate` in a process of its own, as a user types it, and what it writes."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import netkit

from raytensor.chain.writer.lease import FILE
from raytensor.validators.evidence_log import read_log

LIMIT_S = 240.0


def messages(text: str) -> list[dict]:
    """The JSON objects that stand one behind the other: each alarm's message appended its own. The last may be half
    written."""
    found, decoder = [], json.JSONDecoder()
    while text:
        try:
            one, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break
        found.append(one)
        text = text[end:].lstrip()
    return found


def facts_of(message: dict) -> list[dict]:
    """The facts of each alarm and of each end of one in a message: one's own, or those of several at once."""
    return message["alarms"] + message["ended"] if "num_alarms" in message else [message]


class Operator:
    """A validator of `net`. settings: beside those of every test. env: of its process, as `joining` makes it."""

    def __init__(self, net, runs: Path, *settings: str, env: dict[str, str]) -> None:
        command = [
            sys.executable,
            "-m",
            "raytensor",
            "validate",
            "--json",
            "name=v",
            f"paths.runs={runs}",
            f"paths.cache={net.cache}",
            f"hotkeys={net.hotkeys}",
            f"chain.network={net.endpoint}",
            "asking.allow_local_addresses=true",
            "data.tokenizer=bytes",
            f"data.max_documents={netkit.MAX_DOCUMENTS}",
            "mechanism.query.rows=256",
            "chain.margin_blocks=6",
            "chain.rounds_per_tempo=2",
            *settings,
        ]
        self.folder = runs / "v"
        self.log = (runs / "output.txt").open("ab")
        self.process = subprocess.Popen(
            command,
            env=env | {"PYTHONPATH": netkit.PYTHONPATH},
            stdout=self.log,
            stderr=self.log,
            cwd=runs,
            start_new_session=True,
        )

    def events(self, kind: str) -> list[dict]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def stop(self) -> int:
        """End it as Ctrl-C does. Returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self.log.close()

    def writer_pid(self) -> int:
        """The process that has the lease of its keys."""
        with closing(sqlite3.connect(self.folder.parent / FILE)) as leases:
            ((pid,),) = leases.execute("SELECT DISTINCT pid FROM leases").fetchall()
        return pid

    def results(self, netuid: int) -> list[dict]:
        """The results in the evidence of a subnet, over all its validators and segments."""
        logs = (self.folder / f"netuid{netuid}").rglob("evidence.jsonl")
        entries = (entry for log in logs for entry in read_log(log) if entry.kind == "evidence")
        return [result for entry in entries for result in entry.body["results"]]

    def events_text(self) -> str:
        return (self.folder / "events.jsonl").read_text() + (self.folder / "config.yaml").read_text()

    def wait_for(self, what: str, seen) -> None:
        end = time.monotonic() + LIMIT_S
        while not seen():
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode}: {Path(self.log.name).read_text()[-3000:]}"
            )
            assert time.monotonic() < end, f"no {what} within {LIMIT_S:g} s: {Path(self.log.name).read_text()[-3000:]}"
            time.sleep(0.2)

    def included(self, since: int = 0) -> set[tuple[int, str]]:
        return {
            (e["netuid"], e["signer"])
            for e in self.events("receipt_seen")
            if e["fate"] == "included" and e["block"] > since
        }
