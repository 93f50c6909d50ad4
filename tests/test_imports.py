"""Imports go one way, as the table says, and the pure parts never import ray or torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "raytensor"

# A room may import the rooms of lower rank, and itself.
RANK = {
    "types": 0, "errors": 0,
    "config": 1,
    "cluster": 2, "pool": 2, "telemetry": 2,
    "data": 3, "consensus": 3, "chain": 3, "wire": 3, "training": 3, "mechanisms": 3,
    "devnet": 4, "miners": 4, "validators": 4, "consensus_cluster": 4, "consensus_chain": 5,
    "round": 5, "sweep": 5, "axons": 5, "plan": 5, "network": 6, "run": 7, "train": 7, "validate": 7, "query": 7,
    "cli": 8, "__main__": 9,
}  # fmt: skip
# Beyond the ranks: rooms of one rank that know each other, and the one door to the embedded chain.
ALLOWED = {("training", "data"), ("mechanisms", "data"), ("mechanisms", "training")}
FORBIDDEN = {("miners", "chain"), ("validators", "chain"), ("miners", "devnet"), ("validators", "devnet"), ("round", "devnet")}
PURE = ["types.py", "chain/batcher.py", "validators/scoreboard.py", "consensus/*.py", "mechanisms/*.py", "mechanisms/collab/*.py", "chain/calls.py", "chain/events.py"]
DEVNET_DOORS = {"network", "cli"}

FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(path)
    if here == "__init__":
        return
    assert here in RANK, f"{path}: the room {here!r} has no place in the table"
    for name in imports(path):
        if not name.startswith("raytensor."):
            continue
        there = name.split(".")[1]
        pair = (here, there)
        ok = here == there or RANK[there] < RANK[here] or pair in ALLOWED
        assert ok and pair not in FORBIDDEN, f"{path.relative_to(ROOT)} imports {name}"
        assert there != "devnet" or here == "devnet" or here in DEVNET_DOORS, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("pattern", PURE)
def test_pure_parts_know_neither_ray_nor_torch(pattern):
    for path in ROOT.glob(pattern):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"ray", "torch"}, path


def test_only_the_chain_room_imports_substrateinterface():
    for path in FILES:
        if room(path) != "chain":
            assert "substrateinterface" not in {name.split(".")[0] for name in imports(path)}, path
