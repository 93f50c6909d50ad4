"""Writes docs/api.md: every public name of every room with the first sentence of its docstring, read from the source.

python jobs/api_docs.py
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# API reference

Public names by room, written by `python jobs/api_docs.py` from the docstrings; the docstrings themselves say shapes,
units, errors and sources. `help(name)` in Python shows them.
"""


def sentence(node: ast.AST) -> str:
    """The first paragraph of a docstring, on one line."""
    text = ast.get_docstring(node) or ""
    return " ".join(text.split("\n\n")[0].split())


def names(tree: ast.Module) -> list[str]:
    """A line for each public class and function of a module, with its arguments."""
    lines = []
    for node in tree.body:
        if (
            not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            or node.name.startswith("_")
            or not sentence(node)
        ):
            continue
        arguments = ""
        if not isinstance(node, ast.ClassDef):
            arguments = (
                "(" + ", ".join(a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) + ")"
            )
        lines.append(f"- `{node.name}{arguments}`: {sentence(node)}")
    return lines


def main() -> int:
    rooms: dict[str, list[str]] = {}
    for path in sorted((ROOT / "raytensor").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        tree = ast.parse(path.read_text())
        found = names(tree)
        if path.name == "__init__.py" and len(parts) == 3:
            rooms.setdefault(parts[1], []).insert(0, sentence(tree) + "\n")
        elif found:
            room = parts[1] if len(parts) > 2 else "top level"
            rooms.setdefault(room, []).append(
                f"### `{'.'.join(parts)}`\n\n{sentence(tree)}\n\n" + "\n".join(found) + "\n"
            )
    text = HEAD + "".join(
        f"\n## {room}\n\n" + "\n".join(rooms[room]) for room in ["top level", *sorted(set(rooms) - {"top level"})]
    )
    (ROOT / "docs" / "api.md").write_text(text)
    print(f"docs/api.md: {sum(len(parts) for parts in rooms.values())} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
