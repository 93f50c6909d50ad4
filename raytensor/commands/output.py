"""What the short commands print, and the status that they end with.

In: a command's function, rows, amounts. Out: text for people, or one JSON object on standard output whose keys are
stable. An error is one line on standard error and, where there is one, a second line with what to do (with --json:
{"error": {"name", "message", "action"}} on standard output).
Exit status: 0 done, 1 failed, 2 a mistake in the command line, 130 stopped. Knows nothing of chains.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raytensor.errors import ChainRefused, ConfigError, RayTensorError, WireError

RAO = 10**9


def run(command: str, parser: argparse.ArgumentParser, argv: Sequence[str], act: Callable[..., int | None]) -> int:
    """Parse the arguments and call `act` with them; it returns an exit status (None: 0). Errors are printed."""
    try:
        args = parser.parse_args(list(argv))
    except SystemExit as end:  # argparse has printed its help or an error
        return end.code if isinstance(end.code, int) else 2
    try:
        return act(args) or 0
    except RayTensorError as error:
        print_error(command, error, as_json=args.json)
        return exit_status(error)
    except KeyboardInterrupt:
        print(f"raytensor {command}: stopped; extrinsics that were sent are in the journal", file=sys.stderr)
        return 130


def exit_status(error: RayTensorError) -> int:
    """2 for a mistake in the command line or the configuration, else 1."""
    return 2 if isinstance(error, ConfigError) else 1


def print_error(command: str, error: RayTensorError, *, as_json: bool = False) -> None:
    """Print an error: "raytensor COMMAND: message", with the name of a chain error, and a line with what to do."""
    name, action = "", ""
    if isinstance(error, ChainRefused):
        name, action = error.name, error.action
    elif isinstance(error, WireError) and error.fix:
        action = f"fix: {error.fix}"
    message = str(error)
    if as_json:
        return show_json(
            {"error": {"name": name or type(error).__name__, "message": message, "action": action or None}}
        )
    print(f"raytensor {command}: {message}" + (f" ({name})" if name not in message else ""), file=sys.stderr)
    if action and action not in message:
        print(f"  {action}", file=sys.stderr)


def show(args: argparse.Namespace, value: Any, text: str) -> None:
    """Print the value as JSON (--json), or the text."""
    if args.json:
        show_json(value)
    else:
        print(text)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def tao(rao: int) -> str:
    """Exact decimal TAO of an amount in rao: "1.5", "0.000000001"."""
    sign, whole, part = "-" if rao < 0 else "", *divmod(abs(rao), RAO)
    decimals = f"{part:09d}".rstrip("0")
    return f"{sign}{whole:,}" + (f".{decimals}" if decimals else "")


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]], *, left: Sequence[int] = (0,)) -> str:
    """Aligned columns as text; those in `left` are flush left, the others flush right."""
    cells = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(len(row[place]) for row in cells) for place in range(len(headers))]
    lines = []
    for row in cells:
        padded = [c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def blocks_until(block: int | None, head: int) -> str:
    """Blocks from the head to a later block, "-" where there is none."""
    return "-" if block is None or block < head else str(block - head)


def columns(rows: Sequence[Any], cells: Mapping[str, Callable[[Any], Any]], *, left: Sequence[int] = (0,)) -> str:
    """A `table` with one column per header; `cells` maps each header to the function that makes a row's cell."""
    return table(list(cells), [[cell(row) for cell in cells.values()] for row in rows], left=left)


def short(address: str) -> str:
    """The first and last six letters of an address, for a table."""
    return f"{address[:6]}…{address[-6:]}" if len(address) > 16 else address
