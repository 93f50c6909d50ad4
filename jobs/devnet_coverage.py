"""Which calls, storage items, runtime APIs and errors of bittensor 11's generated descriptors the embedded chain has.

In: the interpreter of an environment with bittensor 11, whose descriptors (bittensor/_generated) were made from the
real chain's metadata; the metadata that a node started here serves; `devnet_left_out.toml` beside this file, which says
why something is left out. Out: docs/devnet_coverage.md. The node's metadata say what exists; the error that refuses a
call is found by calling it. An item without a reason, or a reason without an item, fails the run.

    python -m venv clients && clients/bin/pip install 'bittensor==11.3.*'
    python jobs/devnet_coverage.py --python clients/bin/python            write the table
    python jobs/devnet_coverage.py --python clients/bin/python --check    exit 1 if the table would differ
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import json
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bittensor_core  # noqa: E402
from websocket import create_connection  # noqa: E402

from raytensor.devnet.chain_spec import SUDO, build_runtime  # noqa: E402
from raytensor.devnet.launch import EmbeddedChain  # noqa: E402
from raytensor.devnet.pallet import DispatchError, Origin  # noqa: E402
from raytensor.devnet.scale import ScaleError  # noqa: E402

TABLE = ROOT / "docs" / "devnet_coverage.md"
REASONS = Path(__file__).with_name("devnet_left_out.toml")
TIMEOUT_S = 120
KINDS = ("calls", "storage", "apis", "errors")
TITLES = {"calls": "Calls", "storage": "Storage", "apis": "Runtime APIs", "errors": "Errors"}
# What a pallet answers to a call that it knows and never carries out.
REFUSALS = ("CallDisabled", "Deprecated", "POWRegistrationDisabled", "FaucetDisabled")

# Run by the client's own interpreter: descriptors are (container, name, ...) tuples in classes, calls are functions.
DESCRIPTORS = """
import importlib.metadata, inspect, json
from bittensor._generated import calls, errors, runtime_apis, storage
def members(module):
    for name, made in vars(module).items():
        if inspect.isclass(made) and made.__module__ == module.__name__ and not issubclass(made, tuple):
            for key, value in vars(made).items():
                if not key.startswith("_"):
                    yield name, key, value
signature = lambda f: list(inspect.signature(f.__func__).parameters)
print(json.dumps({
    "version": importlib.metadata.version("bittensor"),
    "calls": [[p, n, signature(f)] for p, n, f in members(calls) if isinstance(f, staticmethod)],
    "storage": [[p, n, v.value_type_ident] for p, n, v in members(storage)],
    "apis": [[p, n, None] for p, n, _ in members(runtime_apis)],
    "errors": [[e.pallet, e.name, None] for e in errors.ERRORS.values()],
}))
"""


@dataclass(frozen=True)
class Row:
    """One item. status: "present", "refused" or "left out"; why: the error, the reason, or what differs."""

    kind: str
    container: str
    name: str
    status: str
    why: str


def descriptors(python: Path) -> dict:
    """What the client's wire layer names."""
    ran = subprocess.run([python, "-c", DESCRIPTORS], capture_output=True, text=True, timeout=TIMEOUT_S)
    if ran.returncode:
        said = ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"]
        sys.exit(f"{python} has no bittensor 11: {said[-1]}")
    return json.loads(ran.stdout)


def served_metadata() -> dict:
    """Pallets and runtime APIs in the metadata that a fresh node serves, as bittensor-core reads them."""
    with tempfile.TemporaryDirectory() as folder:
        node = EmbeddedChain(Path(folder) / "state", 12, Path(folder) / "log")
        try:
            client = create_connection(node.endpoint, timeout=TIMEOUT_S)
            params = ["Metadata_metadata_at_version", "0x0f000000"]
            client.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "state_call", "params": params}))
            answer = bytes.fromhex(json.loads(client.recv())["result"][2:])
            client.close()
        finally:
            node.close()
    return bittensor_core.Runtime(answer[answer.index(b"meta") :], 0, 0).metadata_ir()


class Refusals:
    """Calls every call with zeros for arguments, as sudo's key and as root, and takes everything back."""

    def __init__(self) -> None:
        self.runtime = build_runtime()
        self.runtime.next_block()

    def of(self, pallet: str, name: str) -> str | None:
        """The error with which the chain turns this call down whatever its arguments are, or None."""
        runtime = self.runtime
        spec = runtime.pallets[pallet].calls[name]
        zeros = [runtime.codecs(type_).zero for type_ in spec.args.values()]
        for origin in (Origin.signed(SUDO), Origin.root()):
            mark, num_events = runtime.store.mark(), len(runtime.events)
            try:
                runtime.dispatch(origin, runtime.call(f"{pallet}.{name}", *zeros))
            except DispatchError as error:
                if error.name in REFUSALS:
                    return f"{error.pallet}.{error.name}" if hasattr(error, "pallet") else error.name
            except (ScaleError, AttributeError, TypeError):
                pass  # zeros that are no value, as of a call within a call
            finally:
                runtime.store.rollback(mark)
                del runtime.events[num_events:]
        return None


class Reasons:
    """Patterns `Container.name` with a reason, by kind; the longest that fits counts, else the container's own."""

    def __init__(self, path: Path) -> None:
        self.by_kind: dict[str, dict[str, str]] = tomllib.loads(path.read_text())
        self.used: set[tuple[str, str]] = set()

    def of(self, kind: str, item: str) -> str | None:
        for where, name in ((kind, item), ("containers", item.partition(".")[0])):
            fitting = [pattern for pattern in self.by_kind.get(where, {}) if fnmatch.fnmatchcase(name, pattern)]
            if fitting:
                best = max(fitting, key=len)
                self.used.add((where, best))
                return self.by_kind[where][best]
        return None

    def unused(self) -> list[str]:
        return [f"[{kind}] {p}" for kind, known in self.by_kind.items() for p in known if (kind, p) not in self.used]


def compare(named: dict, served: dict, reasons: Reasons) -> Iterator[Row]:
    """Every item that the client names, with what the chain makes of it."""
    pallets = {pallet["name"]: pallet for pallet in served["pallets"]}
    calls = {(p, call["name"]): call for p, pallet in pallets.items() for call in pallet["calls"]}
    storage = {(p, item["name"]): item for p, pallet in pallets.items() for item in pallet["storage"]}
    there = {
        "calls": calls,
        "storage": storage,
        "apis": {(api["name"], method) for api in served["runtime_apis"] for method in api["methods"]},
        "errors": {(p, error["name"]) for p, pallet in pallets.items() for error in pallet["errors"]},
    }
    refusals = Refusals()
    for kind in KINDS:
        for container, name, extra in named[kind]:
            key = (container, name)
            if key not in there[kind]:
                yield Row(kind, container, name, "left out", reasons.of(kind, f"{container}.{name}") or "")
                continue
            error, differs = None, ""
            if kind == "calls":
                error = refusals.of(container, name)
                arguments = [argument["name"] for argument in calls[key]["args"]]
                if arguments != extra:
                    differs = f"takes ({', '.join(arguments)}), the client's descriptor ({', '.join(extra)})"
            elif kind == "storage" and storage[key]["value_type_ident"] != extra:
                differs = f"is {storage[key]['value_type_ident']}, in the client's descriptor {extra}"
            yield Row(kind, container, name, "refused" if error else "present", error or differs)


def table(rows: list[Row], version: str) -> str:
    """The page."""
    sources = f"bittensor {version} and the metadata that `raytensor devnet` serves"
    out = [
        "# What of bittensor's descriptors the embedded chain has",
        "",
        "Made by `python jobs/devnet_coverage.py --python PYTHON` (see its head) from the descriptors of",
        f"{sources}; not edited by hand. A call that is left out",
        "can't be composed by a client, which finds it missing in the metadata; sent all the same, it gets 1001",
        '"Extrinsic has invalid format". A storage item that is left out reads as null, a runtime API as error 4003',
        '"Exported method ... is not found".',
        "",
        "| | named | present | refused | left out |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        counts = [
            sum(row.status == status for row in rows if row.kind == kind)
            for status in ("present", "refused", "left out")
        ]
        out.append(f"| {TITLES[kind]} | {sum(counts)} | " + " | ".join(map(str, counts)) + " |")
    for kind in KINDS:
        out += [
            "",
            f"## {TITLES[kind]}",
            "",
            "| where | what | status | error, reason or difference |",
            "|---|---|---|---|",
        ]
        groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for row in rows:
            if row.kind == kind:
                groups[row.container, row.status, row.why].append(row.name)
        order = {"present": 0, "refused": 1, "left out": 2}
        containers = list(dict.fromkeys(row.container for row in rows if row.kind == kind))
        for (container, status, why), names in sorted(
            groups.items(), key=lambda group: (containers.index(group[0][0]), order[group[0][1]], group[0][2])
        ):
            listed = ", ".join(f"`{name}`" for name in names)
            out.append(f"| {container} | {listed} | {status} | {why} |")
    return "\n".join(out) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment with bittensor 11")
    parser.add_argument("--check", action="store_true", help="compare with the page instead of writing it")
    options = parser.parse_args()
    named, reasons = descriptors(options.python), Reasons(REASONS)
    rows = list(compare(named, served_metadata(), reasons))
    missing = [f"[{row.kind}] {row.container}.{row.name}" for row in rows if row.status == "left out" and not row.why]
    if missing:
        print("left out, and", REASONS.relative_to(ROOT), "says no reason:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    if unused := reasons.unused():
        print("reasons that fit nothing that is left out:", *unused, sep="\n  ", file=sys.stderr)
        return 1
    made = table(rows, named["version"])
    if options.check:
        known = TABLE.read_text() if TABLE.exists() else ""
        sys.stdout.writelines(
            difflib.unified_diff(known.splitlines(True), made.splitlines(True), str(TABLE.name), "now", n=0)
        )
        return int(made != known)
    TABLE.write_text(made)
    print(made[made.index("| |") : made.index("## Calls")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
