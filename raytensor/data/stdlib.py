"""The embedded corpus: the English documentation that every installation of Python carries.

In: the library folder of the interpreter. Out: its documentation topics, module documentation and docstrings, one
document each, in a fixed order. Knows nothing of splits and tokens.

Sources are parsed, never imported: importing some modules of the library has side effects.
"""

import ast
import collections
import copy
import functools
import itertools
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from raytensor.errors import DataError

MIN_CHARS = 40  # shorter docstrings, such as "See above.", are left out
# Not documentation: third-party packages, tests, data, and generated code tables.
SKIPPED_FOLDERS = set("site-packages dist-packages test tests __pycache__ pydoc_data encodings lib-dynload".split())


def stdlib_documents() -> Iterator[str]:
    """All documents, about 2 MB; the order depends on the Python version only. A source is read when its turn comes.

    Raises `DataError` when this Python has no library sources (a frozen or zipped interpreter), or one can't be read.
    """
    return copy.copy(_documents())


@functools.cache
def _documents() -> Iterator[str]:
    """Keeps its place, at the first document, while its copies go on; what one of them has read, all have."""
    return itertools.tee(_read(Path(sysconfig.get_paths()["stdlib"])), 1)[0]


def _read(folder: Path) -> Iterator[str]:
    found, cause = False, "there are none"
    try:
        for text in itertools.chain(_topics(folder / "pydoc_data" / "topics.py"), _docstrings(folder)):
            found = True
            yield text
    except OSError as error:
        found, cause = False, f"{error.filename}: {error.strerror}"
    if not found:
        _documents.cache_clear()  # the next call reads again
        why = f"the sources of Python's library under {folder} can't be read: {cause}"
        raise DataError(f"data.source=stdlib: {why}\n  fix: data.source=text data.files=FOLDER with texts of your own")


def stdlib_fingerprint() -> str:
    """The version and the library folder of the interpreter: equal only where the text is equal."""
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
    waiting: collections.deque[ast.AST] = collections.deque(
        [tree]
    )  # of `ast.walk`, what is no expression: these hold no definitions
    while waiting:
        node = waiting.popleft()
        waiting.extend(child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and len(text) >= MIN_CHARS:
                yield text.strip()
