"""What the chain's commands print, and the status they end with.

In: a command's function, rows, amounts. Out: text for people, or one JSON object on standard output whose keys stay as
they are; errors as name, message and what to do, on standard error (with --json: {"error": ...} on standard output).
Exit status: 0 done, 1 failed, 2 a mistake in the command line, 130 stopped. Knows nothing of chains.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from raytensor.errors import ChainRefused, ConfigError, RayTensorError

RAO = 10**9


def run(command: str, parser: argparse.ArgumentParser, argv: Sequence[str], act: Callable[..., int | None]) -> int:
    """Parses, acts, prints what went wrong. `act` gets the arguments and returns a status (None: 0)."""
    try:
        args = parser.parse_args(list(argv))
    except SystemExit as end:  # argparse has printed its help or its complaint
        return end.code if isinstance(end.code, int) else 2
    try:
        return act(args) or 0
    except RayTensorError as error:
        fail(command, args.json, error)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print(f"raytensor {command}: stopped; what was sent is in the journal", file=sys.stderr)
        return 130


def fail(command: str, as_json: bool, error: RayTensorError) -> None:
    """Prints an error: its name, its message, what to do."""
    name = (error.name if isinstance(error, ChainRefused) else "") or type(error).__name__
    action = error.action if isinstance(error, ChainRefused) else ""
    if as_json:
        show_json({"error": {"name": name, "message": str(error), "action": action or None}})
        return
    print(f"raytensor {command}: {name}: {error}", file=sys.stderr)
    if action and action not in str(error):
        print(f"  {action}", file=sys.stderr)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def tao(rao: int) -> str:
    """Exact decimal TAO of an amount in rao: "1.5", "0.000000001"."""
    sign, whole, part = "-" if rao < 0 else "", *divmod(abs(rao), RAO)
    decimals = f"{part:09d}".rstrip("0")
    return f"{sign}{whole:,}" + (f".{decimals}" if decimals else "")


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,)) -> str:
    """Columns as wide as they must be; those in `left` are flush left, the others flush right."""
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(headers))]
    lines = [
        "  ".join(c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def short(address: str) -> str:
    """An address for a table: its ends."""
    return f"{address[:6]}…{address[-6:]}" if len(address) > 16 else address
