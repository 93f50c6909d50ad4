"""The evidence log: what each round showed, on disk before it counts.

In: the `Evidence` of a round, then the weights that followed. Out: one JSON object a line, in this order:

    {"rules": ...}               what the mechanism is made from; again whenever that has changed
    {"evidence": ...}            a round; synced to the disk before `append` returns, reduced only after
    {"weights": ..., "round": n} what was made of the state then
    {"state": ...}               a state that did not come from the lines above: the log goes on from it

Floats keep every bit. A line that a killed process left torn at the end is cut off: its round was never reduced.
`replay` makes the weights again from the log alone. Knows nothing of Ray or the chain.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from raytensor import config
from raytensor.errors import DataError
from raytensor.mechanisms.evidence import Evidence, State, advance, evidence_from_json, evidence_to_json, state_from_json, state_to_json
from raytensor.validators.scorer import Rules

FORMAT = 1


class EvidenceLog:
    """The log of one (netuid, validator), open for appending; one process at a time.

    Raises `DataError` when the file is of another subnet or validator, or is damaged anywhere but in its last line.
    """

    def __init__(self, path: Path, netuid: int, validator: str, rules: Rules) -> None:
        self.path = path
        self._owner = {"format": FORMAT, "netuid": netuid, "validator": validator}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.cut_bytes = _cut_torn_line(path)
        newest, self.last_round = None, -1
        for entry in read_log(path):
            if entry.kind == "rules":
                _check_owner(path, entry, self._owner)
                newest = entry.body
            self.last_round = max(self.last_round, entry.round)
        self._file = path.open("ab")
        wanted = _rules_to_json(rules)
        if newest is None or newest["made_from"] != wanted:
            self._write({"rules": self._owner | {"made_from": wanted}})

    def append(self, evidence: Evidence) -> None:
        """Write a round, and return when it is on the disk."""
        assert evidence.round > self.last_round, f"round {evidence.round} after round {self.last_round} in {self.path}"
        self._write({"evidence": evidence_to_json(evidence)})
        os.fsync(self._file.fileno())
        self.last_round = evidence.round

    def append_weights(self, round: int, values: Mapping[str, float]) -> None:
        """Write the weights that followed from the state after `round`."""
        self._write({"weights": dict(values), "round": round})

    def append_state(self, state: State) -> None:
        """Write a state that the log's own rounds do not lead to."""
        self._write({"state": state_to_json(state)})

    def cut_after(self, round: int) -> int:
        """Forget rounds after `round`: they are about to be played again. Returns the number of lines that went."""
        kept, gone = [], 0
        for line, entry in zip(self.path.read_bytes().splitlines(keepends=True), read_log(self.path), strict=True):
            if entry.kind != "rules" and entry.round > round:
                gone += 1
            else:
                kept.append(line)
        if gone:
            self._file.close()
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            with temporary.open("wb") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
            self._file = self.path.open("ab")
            self.last_round = round
        return gone

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        # One write, and no buffer of ours behind it: a kill tears at most this line.
        self._file.write(json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        self._file.flush()


@dataclass(frozen=True)
class Entry:
    """A line. kind: rules | evidence | weights | state; body: what it holds, as JSON; round: -1 for rules."""

    number: int
    kind: str
    body: Any
    round: int


def read_log(path: Path) -> Iterator[Entry]:
    """The lines of a log. A torn last line is left out. Raises `DataError` for any other damage."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                fields = json.loads(line)
                kind = next(name for name in ("rules", "evidence", "weights", "state") if name in fields)
                body = fields[kind]
                round = {"rules": lambda: -1, "weights": lambda: fields["round"]}.get(kind, lambda: body["round"])()
                yield Entry(number, kind, body, int(round))
            except (ValueError, KeyError, TypeError, StopIteration) as error:
                raise DataError(f"{path}, line {number}: is no line of an evidence log ({type(error).__name__})") from error


@dataclass(frozen=True)
class Replay:
    """What a log gives when its rounds are reduced again.

    difference  the first place where the log's weights are not the replayed ones, in words; "" when there is none.
    weights     after the last line.
    """

    netuid: int
    validator: str
    mechanism: str
    rounds: int
    weights_checked: int
    weights: dict[str, float]
    state: State
    difference: str = ""


def replay(path: Path, *, state: State = State(), until: int | None = None) -> Replay:
    """Reduce a log's rounds again and compare the weights to the bit.

    state  to start from; rounds that it has already taken in are passed over.
    until  the last round that is taken in.

    Raises `DataError` for a log that can't be read, `ConfigError` for a mechanism that can't be loaded.
    """
    mechanism, owner, rules, rounds, checked, difference = None, {}, None, 0, 0, ""
    if not path.exists():
        raise DataError(f"there is no evidence log {path}")
    for entry in read_log(path):
        if until is not None and entry.round > until:
            break
        try:
            if entry.kind == "rules":
                owner, rules = entry.body, _rules_from_json(entry.body["made_from"])
                mechanism = rules.load()
                continue
            if mechanism is None or rules is None:
                raise DataError(f"{path}, line {entry.number}: comes before any rules")
            if entry.kind == "state" and entry.round > state.round:
                state = state_from_json(entry.body)
            elif entry.kind == "evidence" and entry.round > state.round:
                state = advance(mechanism, state, evidence_from_json(entry.body))
                rounds += 1
            elif entry.kind == "weights" and entry.round == state.round:
                checked += 1
                difference = difference or _difference(entry, mechanism.weights(state))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {entry.number}: {error!r}") from error
    if mechanism is None or rules is None:
        raise DataError(f"{path} holds no rules: it is no evidence log, or its first line was never finished")
    weights = mechanism.weights(state)
    return Replay(owner["netuid"], owner["validator"], rules.mechanism.path, rounds, checked, weights, state, difference)


# ------------------------------------------------------------------------------------------------------------ inside


def _difference(entry: Entry, made: Mapping[str, float]) -> str:
    logged = {str(hotkey): float(value) for hotkey, value in entry.body.items()}
    for hotkey in sorted(logged.keys() | made.keys()):
        before, now = logged.get(hotkey), made.get(hotkey)
        if before != now:
            return f"line {entry.number}, round {entry.round}: {hotkey} had weight {before!r}, replay gives {now!r}"
    return ""


def _check_owner(path: Path, entry: Entry, owner: Mapping[str, Any]) -> None:
    found = {name: entry.body.get(name) for name in owner}
    if found != owner:
        raise DataError(f"{path} is the evidence log of {found}, not of {dict(owner)}")


def _cut_torn_line(path: Path) -> int:
    """Cut off what follows the last line's end. Returns the number of bytes that went."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        return size - end


def _rules_to_json(rules: Rules) -> dict[str, Any]:
    table = np.ascontiguousarray(rules.log_unigram, "<f4")
    return {
        "mechanism": dataclasses.asdict(rules.mechanism),
        "log_unigram": base64.b64encode(table.tobytes()).decode(),
        "vocab_size": rules.vocab_size,
        "deadline_s": rules.deadline_s,
    }


def _rules_from_json(fields: Mapping[str, Any]) -> Rules:
    node = OmegaConf.merge(OmegaConf.structured(config.Mechanism), fields["mechanism"])
    mechanism = OmegaConf.to_object(node)
    assert isinstance(mechanism, config.Mechanism)
    table = np.frombuffer(base64.b64decode(fields["log_unigram"]), "<f4").astype(np.float32)
    return Rules(mechanism, table, int(fields["vocab_size"]), float(fields["deadline_s"]))
