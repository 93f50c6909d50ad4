"""The embedded corpus: real English that is on every machine that has Python.

In: nothing but the interpreter's own library folder. Out: its documentation topics, module documentation and
docstrings, one document each, in a fixed order. Knows nothing of splits and tokens.

Sources are parsed, never imported: some modules of the library act when they are imported.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from raytensor.errors import DataError

MIN_CHARS = 40  # shorter docstrings ("See above.") teach a model nothing
# Not documentation: third-party packages, tests, data, and generated code tables.
SKIPPED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "__pycache__",
    "pydoc_data",
    "encodings",
    "lib-dynload",
}


@functools.lru_cache(maxsize=1)
def stdlib_documents() -> tuple[str, ...]:
    """All documents, about 2 MB; the order depends on the Python version only.

    Raises `DataError` when this Python carries no library sources (a frozen or zipped interpreter).
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = (*_topics(folder / "pydoc_data" / "topics.py"), *_docstrings(folder))
    if not found:
        raise DataError(
            f"this Python has no library sources under {folder}\n  fix: data.source=text data.files=FOLDER with texts of your own"
        )
    return found


def stdlib_fingerprint() -> str:
    """Changes when the library's text may have changed: the interpreter's version and library folder."""
    return f"{sys.implementation.cache_tag} {sys.version} {sysconfig.get_paths()['stdlib']}"


def _topics(path: Path) -> Iterator[str]:
    """The language reference that `help()` shows: a module with one dictionary literal, {topic: text}."""
    if not path.is_file():
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            yield from (topics[name].strip() for name in sorted(topics))


def _docstrings(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("config-"))
        for name in sorted(files):
            if name.endswith(".py"):
                yield from _docstrings_of(Path(root) / name)


def _docstrings_of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates and deliberately broken samples
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= MIN_CHARS:
                yield text.strip()
