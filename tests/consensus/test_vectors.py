"""Every conformance vector, tolerance 0, with both implementations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raytensor.consensus import epoch, plan
from raytensor.consensus.vectors import check_file
from raytensor.errors import DataError

FILES = sorted((Path(__file__).parent / "vectors").glob("*.json"))


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path, implementation):
    compared, differences = check_file(path, lambda inputs: epoch(inputs, implementation=implementation))
    assert differences == []
    assert compared > 0


@pytest.mark.parametrize("density", [0.0, 2.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("threads", [1, 3])
def test_vectors_in_either_layout_and_split(monkeypatch, density, threads):
    monkeypatch.setattr(plan, "DENSE_FROM", density)
    for path in FILES:
        if "512" not in path.stem:
            assert check_file(path, lambda inputs: epoch(inputs, threads=threads))[1] == [], path.stem


def test_there_are_vectors_of_each_kind():
    kinds = {path.stem.split("_")[0] for path in FILES}
    assert kinds == {"epoch", "random", "math"} and len(FILES) == 41


def test_a_wrong_value_is_named(tmp_path):
    content = json.loads((FILES[0].parent / "epoch_bonds.json").read_text())
    content["steps"][1]["expect_full_sparse"]["incentive"][5] += 1
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    compared, differences = check_file(path, epoch)
    assert len(differences) == 1 and compared > 100
    assert differences[0].startswith("step 1: expect_full_sparse.incentive[5]: expected 13108, got 13107")


def test_what_this_version_does_not_know_is_not_passed_over(tmp_path):
    content = json.loads((FILES[0].parent / "epoch_bonds.json").read_text())
    path = tmp_path / "newer.json"
    for where, key in (("set", "colour"), ("expect", "colour")):
        changed = json.loads(json.dumps(content))
        changed["steps"][0][where][key] = 1
        path.write_text(json.dumps(changed))
        with pytest.raises(DataError, match="colour"):
            check_file(path, epoch)


def test_what_is_no_vector_is_refused(tmp_path):
    for text in ("{", "[]", '{"init": {}}'):
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(DataError):
            check_file(path, epoch)
