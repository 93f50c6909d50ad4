"""Writes docs/api.md, the API reference, from the source; `--check` compares instead of writing.

    python jobs/api_docs.py

Lists the public classes and functions of each room with signature, types, dataclass fields, the first sentence of each
docstring and the errors that it names. The text is read from the source; nothing is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"
HEAD = """# API reference

The public classes and functions of `raytensor`, by use: signature and types, fields, errors. Shapes, units and sources
of formulas are in the docstrings: `help(raytensor.consensus.epoch)`. Written by `python jobs/api_docs.py`.

"""
# Title of a group -> its rooms: a module or a package below `raytensor`.
GROUPS: dict[str, tuple[str, ...]] = {
    "Messages and errors": ("types", "errors"),
    "Chain: client": ("chain.rpc", "chain.wallet", "chain.ss58"),
    "Chain: reads": ("chain.reads",),
    "Chain: calls and the writer": (
        "chain.calls",
        "chain.intents",
        "chain.weights",
        "chain.errors",
        "chain.writer",
        "chain.bootstrap",
    ),
    "Mechanisms": ("mechanisms",),
    "Validators": ("validators",),
    "Miners": ("miners",),
    "Wire: signed HTTP": ("wire",),
    "Training": ("training",),
    "Data": ("data",),
    "Pool and cluster": ("pool", "cluster"),
    "Consensus": ("consensus",),
    "Telemetry": ("telemetry",),
    "Settings": ("config",),
    "Files": ("disk",),
    "Jobs": ("jobs.session", "jobs.handover"),
}
# Modules inside a room that other programs do not call.
HIDDEN = {
    "consensus": "kernels pallet_math fixed plan sharded vectors vectors_math fast reference",
    "chain.rpc": "codec transport events connection",
    "chain.reads": "metagraph_api",
    "chain.writer": "beacon commit_book commit_rules commits extrinsic_table fates foreign identity"
    " journal_schema lease limits order_states orders outbox pipeline planner policy_check receipts renewal"
    " thread trail",
    "mechanisms": "questions coalition evidence guard collab.store collab.codec collab.rating",
    "miners": "behaviours checkpoints fifo_lock gauges files group host host_handle shard stacks supervisor"
    " collaborator completion placement submission_export",
    "validators": "scorer segments forward records subnet",
    "wire": "asker codec deadline dialect dialects axon_v10 epistula gate nonce_store tensors endpoints",
    "training": "base causal ranks single_file stacked_adamw stacked_llama torch_engine zero delta_evaluator",
    "telemetry": "console history views page plots redact wandb_child training_report training_view tables unpaid"
    " summary metrics alarms",
    "data": "stdlib packed",
    "config": "checks help overrides yaml_files",
}
WITHOUT_FIELDS = ("raytensor.config",)  # `raytensor COMMAND --help` lists every setting with its comment
RAISES = re.compile(
    r"\b([A-Z]\w*(?:Error|Refused|Unknown|Unavailable|Failed|Lost|Exhausted|Snapshot|Damaged\w*|Endpoint))\b"
)


def sentence(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    found = re.match(r"(.+?[.:;])(?= [A-Z`(]|$)", text)
    return (found[1] if found else text).rstrip(".:;")


def errors_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The errors that a docstring says are raised, as " Raises A, B."."""
    text = " ".join((ast.get_docstring(node) or "").split())
    places = [match.start() for match in re.finditer(r"[Rr]aises? ", text)]
    names = dict.fromkeys(name for at in places for name in RAISES.findall(text[at : at + 200]))
    return f" Raises {', '.join(names)}." if names else ""


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool = False) -> str:
    """name(arguments with types and defaults) -> type."""
    arguments = ast.unparse(node.args)
    if method:
        arguments = re.sub(r"^(self|cls)(: [^,]+)?(, )?", "", arguments)
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"{node.name}({arguments}){result}"


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def described_fields(docstring: str) -> dict[str, str]:
    """Field -> text, of the lines "name  text" of a docstring and their indented continuation."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in docstring.splitlines():
        if match := re.match(r"(\w+(?:, \w+)*) {2,}(\S.*)$", line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        elif re.match(r" {6,}\S", line):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def fields(node: ast.ClassDef, lines: list[str]) -> tuple[list[str], list[str]]:
    """The fields of a dataclass as arguments, and a line per field that a comment or the docstring describes."""
    described = described_fields(ast.get_docstring(node) or "")
    arguments, about = [], []
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name = field.target.id
        if name.startswith("_") or "ClassVar" in ast.unparse(field.annotation):
            continue
        default = "" if field.value is None else f" = {ast.unparse(field.value)}"
        default = re.sub(r"^ = (dataclasses\.)?field\(default_factory=(.+?)\)$", r" = \2()", default)
        arguments.append(f"{name}: {ast.unparse(field.annotation)}{default}")
        comment = re.search(r"# (?!pyright|type:)([^#]*)$", lines[field.end_lineno - 1][field.end_col_offset :])
        words = [comment[1]] if comment else []
        above = field.lineno - 2
        while not comment and lines[above].strip().startswith("#"):
            words.insert(0, lines[above].strip(" #"))
            above -= 1
        if text := described.get(name) or " ".join(words):
            about.append(f"  - `{name}`: {text}")
    return arguments, about


def class_lines(node: ast.ClassDef, lines: list[str], *, with_fields: bool) -> list[str]:
    """A class: its constructor, what it is, its fields and its public methods."""
    methods = [item for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))]
    constructor = next((item for item in methods if item.name == "__init__"), None)
    head = node.name if constructor is None else signature(constructor, method=True).replace("__init__", node.name, 1)
    bases, about = ", ".join(ast.unparse(base) for base in node.bases), []
    kind = f" ({bases})" if bases else ""
    if is_dataclass(node):
        arguments, about = fields(node, lines)
        head, kind = node.name, " (dataclass)"
        if with_fields:
            head = f"{node.name}({', '.join(arguments)})"
    found = [
        f"- **`{head.removesuffix(' -> None')}`**{kind}: {sentence(node)}.{errors_of(node)}",
        *(about if with_fields else []),
    ]
    for method in methods:
        if method.name.startswith("_") or not sentence(method):
            continue
        decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
        shown = signature(method, method=True)
        if decorators & {"property", "cached_property", "functools.cached_property"}:
            shown = shown.replace("()", "", 1)
        found.append(f"  - `{shown}`: {sentence(method)}.{errors_of(method)}")
    return found


def module_lines(path: Path) -> list[str]:
    """The public names of one module, in the order of the source; empty if it has none."""
    text = path.read_text()
    tree, lines = ast.parse(text), text.splitlines()
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    with_fields = not name.startswith(WITHOUT_FIELDS)
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if sentence(node) or is_dataclass(node):
                found += class_lines(node, lines, with_fields=with_fields)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            if sentence(node):
                found.append(f"- `{signature(node)}`: {sentence(node)}.{errors_of(node)}")
    if not found:
        return []
    return [f"### `{name}`", "", f"{sentence(tree)}.", "", *found, ""]


def room_files(room: str) -> list[Path]:
    """The modules of a room, the package itself first."""
    path = ROOT / "raytensor" / room.replace(".", "/")
    if path.is_dir():
        return sorted(path.rglob("*.py"), key=lambda file: (file.parent, file.name != "__init__.py", file.name))
    return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else []


def is_hidden(name: str) -> bool:
    """Whether a module, named below `raytensor`, is left out of the reference."""
    return any(f"{name}.".startswith(f"{room}.{part}.") for room, parts in HIDDEN.items() for part in parts.split())


def page() -> str:
    """The whole reference."""
    parts, index = [], []
    for title, rooms in GROUPS.items():
        anchor = re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        found = []
        for file in (file for room in rooms for file in room_files(room)):
            name = ".".join(file.relative_to(ROOT / "raytensor").with_suffix("").parts)
            if not is_hidden(name):
                found += module_lines(file)
        index.append(f"- [{title}](#{anchor}): {', '.join(f'`raytensor.{room}`' for room in rooms)}")
        parts += [f"## {title}", "", *found]
    return HEAD + "\n".join([*index, "", *parts]).rstrip() + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text() == text
        print(f"{PAGE.relative_to(ROOT)}: {'up to date' if same else 'out of date, run python jobs/api_docs.py'}")
        return 0 if same else 1
    PAGE.write_text(text)
    print(f"{PAGE.relative_to(ROOT)}: {len(text.splitlines())} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
