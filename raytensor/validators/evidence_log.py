"""The evidence log: the evidence of each round, on disk before it is reduced.

In: the `Evidence` of a round, then the weights that followed. Out: one JSON object a line, in this order:

    {"rules": ...}               the mechanism's spec; again whenever it has changed
    {"evidence": ...}            a round; synced to the disk before `append` returns, reduced only after
    {"weights": ..., "round": n} the weights that followed from the state after that round
    {"state": ...}               a state that the lines above do not lead to: the log continues from it

Floats keep every bit. A torn last line is cut off: its round was never reduced. A full log is closed as a segment
(segments.py); the next segment begins with the spec and the state that the closed ones lead to, so each segment can be
replayed alone, and all of them in one go. `replay` makes the weights again from the log alone.
Knows nothing of Ray or the chain.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from raytensor import config, disk
from raytensor.errors import DataError
from raytensor.mechanisms import evidence as formats
from raytensor.mechanisms.evidence import Evidence, State, advance
from raytensor.validators import segments
from raytensor.validators.scorer import MechanismSpec

FORMAT = 1


@dataclass(frozen=True)
class Keep:
    """When a segment is closed, and how many closed ones are kept. None: no such bound."""

    segment_bytes: int = 64 * 2**20
    segment_rounds: int | None = None
    segments: int | None = 16

    @classmethod
    def of(cls, cfg: config.Scoring) -> Keep:
        return cls(int(cfg.evidence_mib * 2**20), cfg.evidence_rounds, cfg.evidence_segments)


class EvidenceLog:
    """The log of one (netuid, validator), open for appending; one process at a time.

    Raises `DataError` when the file is of another subnet or validator, or is damaged anywhere but in its last line.
    """

    def __init__(self, path: Path, netuid: int, validator: str, rules: MechanismSpec, keep: Keep = Keep()) -> None:
        self.path = path
        self._keep = keep
        owner = {"format": FORMAT, "netuid": netuid, "validator": validator}
        self._rules = {"rules": owner | {"made_from": _rules_to_json(rules)}}
        path.parent.mkdir(parents=True, exist_ok=True)
        segments.restore(path)
        disk.cut_torn_line(path)
        if self._open() != self._rules["rules"]:
            self._write(self._rules)

    def _open(self) -> Any:
        """Read the newest segment, and open it. Returns the spec that it names last."""
        newest, self.last_round, self._rounds = None, -1, 0
        for entry in _entries_of(self.path):
            if entry.kind == "rules":
                _check_owner(self.path, entry, self._rules["rules"])
                newest = entry.body
            self._rounds += entry.kind == "evidence"
            self.last_round = max(self.last_round, entry.round)
        self._file = self.path.open("ab")
        return newest

    def append(self, evidence: Evidence) -> None:
        """Write the evidence of a round; it is on the disk when this returns."""
        assert evidence.round > self.last_round, f"round {evidence.round} after round {self.last_round} in {self.path}"
        self._write({"evidence": formats.evidence_to_json(evidence)})
        disk.sync(self._file)
        self.last_round, self._rounds = evidence.round, self._rounds + 1

    def append_weights(self, round: int, values: Mapping[str, float]) -> None:
        """Write the weights that followed from the state after `round`."""
        self._write({"weights": dict(values), "round": round})

    def append_state(self, state: State) -> None:
        """Write a state that the log's own rounds do not lead to."""
        self._write({"state": formats.state_to_json(state)})
        self.last_round = state.round

    def roll(self, state: State, saved_round: int) -> bool:
        """Close the segment if it is full. Returns whether it was.

        state        that the log has led to.
        saved_round  of the board on disk that a restart continues from: later segments are kept.
        """
        assert state.round == self.last_round, f"a state of round {state.round} after round {self.last_round}"
        keep = self._keep
        full = keep.segment_rounds is not None and self._rounds >= keep.segment_rounds
        # A segment without rounds is not full: its head may be larger than the bound.
        if not self._rounds or not (full or self._file.tell() >= keep.segment_bytes):
            return False
        disk.sync(self._file)
        self._file.close()
        segments.close(self.path, [_line(self._rules), _line({"state": formats.state_to_json(state)})])
        self._open()
        files = [*segments.closed(self.path), self.path]
        most = len(files) if keep.segments is None else keep.segments
        while len(files) - 1 > most and (_begins_with(files[1]) or 0) <= saved_round:
            files.pop(0).unlink()
        return True

    def cut_after(self, round: int) -> int:
        """Remove rounds after `round`, which are played again. Returns the number of lines removed."""
        gone = 0
        while (_begins_with(self.path) or 0) > round and (before := segments.closed(self.path)):
            gone += sum(1 for _ in _entries_of(self.path))
            self._file.close()
            disk.replace(before[-1], self.path)  # the segment before is the newest now
            self._open()
        lines, entries = self.path.read_bytes().splitlines(keepends=True), read_log(self.path, self.path)
        pairs = zip(lines, entries, strict=True)
        kept = [line for line, entry in pairs if entry.kind == "rules" or entry.round <= round]
        gone += len(lines) - len(kept)
        if gone:
            self._file.close()
            disk.write_bytes(self.path, kept)
            self._open()
            self.last_round = round
        return gone

    def close(self) -> None:
        self._file.close()

    def _write(self, entry: Mapping[str, Any]) -> None:
        # One write without a buffer: a killed process tears at most this line.
        self._file.write(_line(entry))
        self._file.flush()


@dataclass(frozen=True)
class Entry:
    """A line. kind: rules | evidence | weights | state; body: its content, as JSON; round: -1 for rules."""

    path: Path
    number: int
    kind: str
    body: Any
    round: int


def read_log(path: Path, first: Path | None = None) -> Iterator[Entry]:
    """The lines of a log, its closed segments first. A torn last line is left out.

    first  the segment to begin with; `path` itself for the newest alone.

    Raises `DataError` for any other damage.
    """
    return _entries_of(path) if first == path else _entries(segments.lines(path, first))


@dataclass(frozen=True)
class Replay:
    """The outcome of reducing a log's rounds again.

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
    """Reduce a log's rounds again, over all its segments, and compare weights and states to the bit.

    path   the log, or one closed segment by itself.
    state  to start from; rounds that it has reduced already are skipped, and segments that end before it are not read.
    until  the last round that is reduced.

    Raises `DataError` for a log that can't be read, `ConfigError` for a mechanism that can't be loaded.
    """
    mechanism, owner, rules, rounds, checked, difference = None, {}, None, 0, 0, ""
    files = [*segments.closed(path), *([path] if path.exists() else [])]
    if not files:
        raise DataError(f"there is no evidence log {path}")
    begins = ((file, _begins_with(file)) for file in reversed(files[1:]))
    first = next((file for file, begin in begins if begin is not None and begin <= state.round), files[0])
    for entry in read_log(path, first):
        if until is not None and entry.round > until:
            break
        try:
            if entry.kind == "rules":
                owner, rules = entry.body, _rules_from_json(entry.body["made_from"])
                mechanism = rules.load()
                continue
            if mechanism is None or rules is None:
                raise DataError(f"{entry.path}, line {entry.number}: comes before any spec of a mechanism")
            if entry.kind == "state" and entry.round == state.round:
                difference = difference or _other_state(entry, path, state)
            elif entry.kind == "state" and entry.round > state.round:
                state = formats.state_from_json(entry.body)
            elif entry.kind == "evidence" and entry.round > state.round:
                state = advance(mechanism, state, formats.evidence_from_json(entry.body))
                rounds += 1
            elif entry.kind == "weights" and entry.round == state.round:
                checked += 1
                difference = difference or _difference(entry, path, mechanism.weights(state))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{entry.path}, line {entry.number}: {error!r}") from error
    if mechanism is None or rules is None:
        raise DataError(f"{path} names no mechanism: it is no evidence log, or its first line was never finished")
    of, weights = (owner["netuid"], owner["validator"], rules.mechanism.path), mechanism.weights(state)
    return Replay(*of, rounds, checked, weights, state, difference)


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _entries_of(segment: Path) -> Iterator[Entry]:
    return _entries((segment, *line) for line in (disk.whole_lines(segment) if segment.exists() else ()))


def _entries(lines: Iterable[tuple[Path, int, bytes]]) -> Iterator[Entry]:
    for path, number, line in lines:
        try:
            fields = json.loads(line)
            kind = next(name for name in ("rules", "evidence", "weights", "state") if name in fields)
            body = fields[kind]
            number_of = {"rules": -1, "weights": fields.get("round")}
            round = number_of[kind] if kind in number_of else body["round"]
            yield Entry(path, number, kind, body, int(round))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise DataError(f"{path}, line {number}: is no line of an evidence log ({type(error).__name__})") from error


def _begins_with(segment: Path) -> int | None:
    """The round of the state that a segment begins with, None if it begins with anything else."""
    first = next((entry for entry in _entries_of(segment) if entry.kind != "rules"), None)
    return first.round if first is not None and first.kind == "state" else None


def _where(entry: Entry, path: Path) -> str:
    segment = f"{entry.path.name}, " if entry.path != path else ""
    return f"{segment}line {entry.number}, round {entry.round}"


def _difference(entry: Entry, path: Path, made: Mapping[str, float]) -> str:
    logged = {str(hotkey): float(value) for hotkey, value in entry.body.items()}
    for hotkey in sorted(logged.keys() | made.keys()):
        before, now = logged.get(hotkey), made.get(hotkey)
        if before != now:
            return f"{_where(entry, path)}: {hotkey} had weight {before!r}, replay gives {now!r}"
    return ""


def _other_state(entry: Entry, path: Path, state: State) -> str:
    same = formats.state_from_json(entry.body) == formats.state_from_json(formats.state_to_json(state))
    return "" if same else f"{_where(entry, path)}: replay gives another state"


def _check_owner(path: Path, entry: Entry, owner: Mapping[str, Any]) -> None:
    names = ("format", "netuid", "validator")
    found, wanted = ({name: fields.get(name) for name in names} for fields in (entry.body, owner))
    if found != wanted:
        raise DataError(f"{path} is the evidence log of {found}, not of {wanted}")


def _rules_to_json(rules: MechanismSpec) -> dict[str, Any]:
    table = base64.b64encode(np.ascontiguousarray(rules.log_unigram, "<f4").tobytes()).decode()
    settings = dataclasses.asdict(rules.mechanism)
    del settings["version_key"]  # for the chain alone: it changes no score
    fields = {"mechanism": settings, "log_unigram": table}
    return fields | {"vocab_size": rules.vocab_size, "deadline_s": rules.deadline_s}


@functools.lru_cache(maxsize=16)
def _mechanism_from_json(text: str) -> config.Mechanism:
    """Checked settings of a mechanism. Cached: each segment of a log repeats them, and checking takes 30 ms."""
    mechanism = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config.Mechanism), json.loads(text)))
    assert isinstance(mechanism, config.Mechanism)
    return mechanism


def _rules_from_json(fields: Mapping[str, Any]) -> MechanismSpec:
    mechanism = copy.deepcopy(_mechanism_from_json(json.dumps(fields["mechanism"])))
    table = np.frombuffer(base64.b64decode(fields["log_unigram"]), "<f4").astype(np.float32)
    return MechanismSpec(mechanism, table, int(fields["vocab_size"]), float(fields["deadline_s"]))
