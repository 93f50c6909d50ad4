"""Conformance vectors: runs a file of recorded epochs and lists each field that differs.

In: a JSON file. `init` is the state of a network; each of `steps` changes it (`set`, in the order of `Network.apply`),
runs one epoch and records the chain's result (`expect`, `expect_full_sparse`). Files of `cases` record calls of the
pallet's maths functions instead. Out: a list of differences. The tolerance is 0, except for fields that the chain's own
test compares with a tolerance.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raytensor.consensus.dense_rows import DenseRows
from raytensor.consensus.epoch_io import NO_COMMIT, EpochInput, EpochOutput, stake_from_bits
from raytensor.consensus.rows import Rows
from raytensor.consensus.vectors_math import check_cases
from raytensor.errors import DataError

# name in a vector -> field of `EpochOutput`
_COLUMNS = {name: name for name in ("consensus", "incentive", "dividends", "validator_trust", "stake_weight", "active")}
_COLUMNS |= {name: name for name in ("emission", "server_emission", "validator_emission")}
_COLUMNS["permit"] = "validator_permit"
# names that a `set` may have
_CHANGES = {"block", "hyper", "replace_uid", "stake", "stake_is_I64F64_bits", "weights", "weight_blocks", "weight_diag"}
_CHANGES |= {"last_update", "block_at_registration", "commits", "reset_bonds_of"}


class Network:
    """The state of the network of one vector file."""

    def __init__(self, init: dict, bits_given: bool = False) -> None:
        self.n: int = init["n"]
        self.block: int = init["block"]
        self.hyper: dict = dict(init["hyper"])
        # whole rao, or the raw bits of the I64F64
        self.bits_given = init.get("stake_is_I64F64_bits", bits_given)
        self.stake_bits = [self._bits(value) for value in init["stake"]]
        self.permit = list(init["validator_permit"])
        self.last_update = list(init["last_update"])
        self.registered = list(init["block_at_registration"])
        self.weights: dict[int, list] = {int(uid): row for uid, row in init["weights"].items()}
        bonds = {int(uid): row for uid, row in init["bonds"].items()}
        self.bonds: Rows | DenseRows = Rows.from_dict(self.n, bonds, name="bonds")
        self.commits = {int(uid): block for uid, block in init["commits"].items()}
        self.consensus: list[int] = list(init.get("previous_consensus", ()))

    def apply(self, change: dict) -> None:
        """Apply the `set` of one step. Raises DataError for an unknown change."""
        if unknown := change.keys() - _CHANGES:
            raise DataError(f"the vector sets {', '.join(sorted(unknown))}, which this version does not support")
        self.block = change.get("block", self.block)
        self.hyper.update(change.get("hyper", {}))
        self.bits_given = change.get("stake_is_I64F64_bits", self.bits_given)
        if "replace_uid" in change:
            self._replace(*change["replace_uid"])
        for uid, value in change.get("stake", {}).items():
            self.stake_bits[int(uid)] = self._bits(value)
        for block in change.get("weight_blocks", ()):
            for uid in block["rows"]:
                self.weights[uid] = [[j, block["value"]] for j in block["cols"]]
        if "weight_diag" in change:
            for uid in change["weight_diag"]["rows"]:
                self.weights[uid] = [[uid, change["weight_diag"]["value"]]]
        columns: dict[str, Any] = {"weights": self.weights, "last_update": self.last_update, "commits": self.commits}
        for name, column in {**columns, "block_at_registration": self.registered}.items():
            for uid, value in change.get(name, {}).items():
                column[int(uid)] = value
        if "reset_bonds_of" in change:
            self.bonds = self.bonds.without_column(change["reset_bonds_of"])

    def _bits(self, stake: int) -> int:
        return stake if self.bits_given else stake << 64

    def _replace(self, uid: int, block: int) -> None:
        """A new neuron takes the uid: its rows are removed, other validators' weights for it become stored zeros."""
        self.weights.pop(uid, None)
        self.bonds = self.bonds.replace_row(uid, [], name="bonds")
        self.permit[uid] = False
        self.registered[uid] = self.last_update[uid] = block
        if self.consensus:
            self.consensus[uid] = 0
        self.weights = {i: [[j, 0 if j == uid else w] for j, w in row] for i, row in self.weights.items()}

    def inputs(self, emission: int) -> EpochInput:
        # a vector without a mode is of a chain before spec 448, whose liquid alpha used the current consensus
        hyper = {"liquid_alpha_mode": "current", **self.hyper}
        stake, stake_frac = stake_from_bits(self.stake_bits)
        commit_block = np.full(self.n, NO_COMMIT, np.uint64)
        for uid, block in self.commits.items():
            commit_block[uid] = block
        return EpochInput(
            block=self.block,
            # the pallet reads the first n only; its own test stores more
            last_update=np.array(self.last_update[: self.n], np.uint64),
            block_at_registration=np.array(self.registered, np.uint64),
            stake=stake,
            stake_frac=stake_frac,
            validator_permit=np.array(self.permit, bool),
            weights=Rows.from_dict(self.n, self.weights, name="weights"),
            bonds=self.bonds,
            commit_block=commit_block,
            previous_consensus=np.array(self.consensus, np.uint16),
            emission=emission,
            **hyper,
        )


def check_file(path: str | Path, run: Callable[[EpochInput], EpochOutput]) -> tuple[int, list[str]]:
    """(number of values compared, differences) of one vector file.

    run: the epoch to test. Raises DataError for a file that is not a vector file.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict) or not ("cases" in content or ("init" in content and "steps" in content)):
        raise DataError(f'{path}: neither "init" and "steps" nor "cases"; see docs/consensus.md for the format')
    if "cases" in content:
        return check_cases(content["cases"])
    network = Network(content["init"], content.get("stake_is_I64F64_bits", False))
    compared, differences = 0, []
    for number, step in enumerate(content["steps"]):
        network.apply(step.get("set", {}))
        previous = network.bonds
        result = run(network.inputs(step["emission"]))
        for name in ("expect_full_sparse", "expect"):
            for what, wanted, got in _comparisons(step.get(name, {}), result, previous):
                compared += 1
                if wanted != got:
                    differences.append(f"step {number}: {name}.{what}: expected {wanted}, got {got}")
        network.permit = result.validator_permit.tolist()
        network.bonds = result.bonds
        network.consensus = result.consensus.tolist()
    return compared, differences


def bonds_sha256(bonds: Rows | DenseRows) -> str:
    """SHA-256 of [[uid, [[j, value], ...]], ...] as compact JSON, with all uids, empty rows included."""
    listed = [[uid, [list(entry) for entry in row]] for uid, row in enumerate(bonds.to_lists())]
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()


def _comparisons(expect: dict, result: EpochOutput, previous: Rows | DenseRows) -> Iterator[tuple[str, object, object]]:
    """(name, expected, got) of each value in one `expect`. Raises DataError for an unknown name."""
    bonds = [dict(row) for row in result.bonds.to_lists()]
    before = [dict(row) for row in previous.to_lists()]

    def at(key: str, rows: list[dict[int, int]]) -> int:
        i, j = key.split(",")
        return rows[int(i)].get(int(j), 0)

    for key, wanted in expect.items():
        base, _, relation = key.rpartition("_")
        if key in _COLUMNS:
            column = getattr(result, _COLUMNS[key]).tolist()
            pairs = wanted.items() if isinstance(wanted, dict) else enumerate(wanted)
            for uid, value in pairs:
                yield f"{key}[{uid}]", value, type(value)(column[int(uid)])
        elif key == "bonds" and all("," in k for k in wanted):
            for pair, value in wanted.items():
                yield f"bonds[{pair}]", value, at(pair, bonds)
        elif key == "bonds":
            rows = {str(uid): [list(entry) for entry in row] for uid, row in enumerate(result.bonds.to_lists()) if row}
            for uid in sorted(rows.keys() | wanted.keys(), key=int):
                yield f"bonds[{uid}]", wanted.get(uid, []), rows.get(uid, [])
        elif key == "bonds_sha256":
            yield key, wanted, bonds_sha256(result.bonds)
        elif key in ("bonds_ge_prev", "bonds_le_prev"):
            sign = 1 if key == "bonds_ge_prev" else -1
            for pair in wanted:
                yield f"{key}[{pair}]", True, sign * (at(pair, bonds) - at(pair, before)) >= 0
        elif key == "bonds_min":
            for pair, least in wanted.items():
                yield f"{key}[{pair}]", True, at(pair, bonds) >= least
        elif relation == "min":
            for uid, least in wanted.items():
                yield f"{key}[{uid}]", True, int(getattr(result, _COLUMNS[base])[int(uid)]) >= least
        elif relation == "equal":
            first, *others = (int(getattr(result, _COLUMNS[base])[uid]) for uid in wanted)
            yield key, True, all(value == first for value in others)
        elif key == "emission_total":
            value, tolerance = wanted
            total = int(result.server_emission.sum()) + int(result.validator_emission.sum())
            yield f"{key}~{value}", True, abs(total - value) <= tolerance
        elif key == "dividends_prop":
            for uid, share in enumerate(wanted):
                got = float(result.dividends[uid]) / 65535
                yield f"{key}[{uid}]~{share}", True, abs(got - share) <= expect["atol"]
        elif key not in ("atol", "bonds_prop_unchecked", "trace_approx"):
            raise DataError(f'the vector expects "{key}", which this version can not compare')
