"""The audit log of a writer: one JSON object per line, appended and synced to disk, never rewritten.

    {"at", "event": "denied" | "sent" | "receipt", "intent_id", "call", "signer", ...}

In: refusals of the policy, extrinsics that were sent, receipts. Out: the file. Knows nothing of signing or nonces.
"""

import dataclasses
import datetime
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from raytensor import disk
from raytensor.chain.writer.batcher import Planned
from raytensor.types import Receipt

log = logging.getLogger(__name__)


class AuditLog:
    """path: the file, readable by its owner only; None writes nothing.

    unwritten  lines that could not be written; trouble: why the last of them could not. Nothing here raises once the
               file is open: what is sent and what is paid does not depend on its record.
    """

    def __init__(self, path: str | os.PathLike | None) -> None:
        self._file = None
        self.unwritten, self.trouble = 0, ""
        if path is not None:
            file = Path(path).expanduser()
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)

    def denied(self, receipts: Iterable[Receipt]) -> None:
        """Intents that the policy refused. They leave no other trace: the journal does not have them."""
        self._write("denied", map(_row, receipts))

    def sent(self, planned: Planned, extrinsic_hash: str, call: bytes) -> None:
        """An extrinsic that was given to a node, or may have been. call: its encoded call."""
        call_hash = "0x" + hashlib.blake2b(call, digest_size=32).hexdigest()
        row = {"extrinsic_hash": extrinsic_hash, "call": planned.call.name, "call_hash": call_hash}
        self._write("sent", [{**row, "signer": planned.signer, "intent_ids": list(planned.intent_ids)}])

    def reported(self, receipts: Iterable[Receipt], nonce: int | None = None) -> None:
        """Receipts; nonce: of the extrinsic that decided them."""
        more = {} if nonce is None else {"nonce": nonce}
        self._write("receipt", [{**_row(receipt), **more} for receipt in receipts])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: str, rows: Iterable[dict]) -> None:
        """Append the rows in one write; they are on disk when this returns."""
        if self._file is None:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        lines = [json.dumps({"at": now, "event": event, **row}) for row in rows]
        if not lines:
            return
        try:
            self._file.write(("\n".join(lines) + "\n").encode())
            disk.sync(self._file)
        except OSError as error:
            self.unwritten += len(lines)
            self.trouble = f"audit log: {error.strerror or error}"
            log.error("%d lines of the audit log could not be written: %s", len(lines), error)


def _row(receipt: Receipt) -> dict:
    return {name: value for name, value in dataclasses.asdict(receipt).items() if value is not None}
