"""Imports go one way, as the table says, and the pure parts never import ray or torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "raytensor"

# A room may import the rooms above it in this list, and itself.
ORDER = [
    ["payload"],
    ["types", "errors", "disk", "clock", "arguments", "supervised"],
    ["config", "storage"],
    ["cluster", "pool", "telemetry"],
    ["data", "consensus", "chain", "wire", "training", "mechanisms"],
    ["miners", "validators", "devnet"],
    ["jobs", "commands", "subnets"],
    ["cli"],
    ["__main__"],
]
RANK = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
# Imports between rooms of one line of the list.
ALLOWED = {
    ("training", "data"),
    ("mechanisms", "data"),
    ("mechanisms", "training"),
    ("jobs", "commands"),
    ("cluster", "pool"),
}
# Single modules that rooms of the same line may import: the one definition of an address.
ALLOWED_MODULES = {("wire", "raytensor.chain.ss58")}
# The order inside chain/. Modules that are not listed belong to the first line.
CHAIN_ORDER = [["root"], ["rpc"], ["reads"], ["writer"], ["bulk_submitter"], ["bootstrap"]]
CHAIN_RANK = {room: number for number, rooms in enumerate(CHAIN_ORDER) for room in rooms}
PURE = [
    "types.py",
    "payload.py",
    "chain/calls.py",
    "chain/intents.py",
    "chain/rpc/events.py",
    "chain/writer/batcher.py",
    "consensus/*.py",
    "mechanisms/*.py",
    "mechanisms/collab/*.py",
    "validators/scoreboard.py",
]
# The embedded chain is an endpoint: only its launcher and its command are imported.
DEVNET_CALLERS = {"jobs/run/chain_start.py", "subnets/served.py", "cli.py"}

FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> set[str]:
    """Names of imported modules; `from raytensor.a import b` gives raytensor.a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def chain_room(name: str) -> str:
    part = name.split(".")[2] if name.count(".") >= 2 else "root"
    return part if part in CHAIN_RANK else "root"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    here = room(path)
    if here == "__init__":
        return
    assert here in RANK, f"{path}: the room {here!r} has no place in the table"
    for name in imports(path):
        if not name.startswith("raytensor.") or name == "raytensor.__version__":
            continue
        there = name.split(".")[1]
        pair = (here, there)
        ok = here == there or RANK[there] < RANK[here] or pair in ALLOWED
        ok = ok or any(here == one and name.startswith(module) for one, module in ALLOWED_MODULES)
        assert ok, f"{path.relative_to(ROOT)} imports {name}"
        if there == "devnet" and here != "devnet":
            assert str(path.relative_to(ROOT)) in DEVNET_CALLERS, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "chain").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_inside_chain_go_one_way(path):
    here = chain_room(".".join(["raytensor", *path.relative_to(ROOT).with_suffix("").parts]))
    for name in imports(path):
        if name.startswith("raytensor.chain."):
            there = chain_room(name)
            assert CHAIN_RANK[there] <= CHAIN_RANK[here], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room_name", ["miners", "validators", "mechanisms", "wire"])
def test_only_jobs_and_commands_import_chain(room_name):
    for path in (ROOT / room_name).rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("raytensor.chain.") or name.startswith("raytensor.chain.ss58"), path


@pytest.mark.parametrize("pattern", PURE)
def test_pure_parts_know_neither_ray_nor_torch(pattern):
    paths = list(ROOT.glob(pattern))
    assert paths, pattern
    for path in paths:
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"ray", "torch"}, path


def test_only_the_chain_room_imports_substrateinterface():
    for path in FILES:
        if room(path) != "chain":
            assert "substrateinterface" not in {name.split(".")[0] for name in imports(path)}, path
