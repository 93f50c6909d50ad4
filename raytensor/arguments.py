"""Command-line arguments: a parser that suggests the option that was meant, and numbers with ranges.

In: argparse declarations and a command line. Out: values, or exit status 2 after one line that names the option, the
value and what is accepted. Imports the standard library only, so that `--help` answers at once.
Knows nothing of what the arguments mean.
"""

import argparse
import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` without abbreviations, whose help ends with examples and whose errors suggest a fix.

    Subparsers made by `add_subparsers().add_parser(...)` are of this class too and take `examples` as well.
    """

    def __init__(self, prog: str | None = None, *, examples: str = "", **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("epilog", f"examples:\n{examples}" if examples else None)
        super().__init__(prog, allow_abbrev=False, **settings)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # argparse's stub has two overloads
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As `ArgumentParser.parse_known_args`, but unknown arguments are an error (exit status 2)."""
        given = list(sys.argv[1:] if args is None else args)
        for text in given:
            if text == "--" or (self._subparsers is not None and not text.startswith("-")):
                break  # the rest are positional arguments, or belong to a subparser
            name = text.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                self.error(f"there is no option {name}{did_you_mean(name, self._option_string_actions)}")
        values, extra = super().parse_known_args(given, namespace)
        if extra:
            self.error(f"unexpected argument {extra[0]!r}")
        return values, []

    def parse_with_settings(self, args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """(options, settings): as `parse_args`, where settings "key=value" may stand anywhere between the options."""
        rest: list[str] = []
        settings: list[str] = []
        is_value = False  # of the option before it
        for text in args:
            is_setting = not is_value and re.fullmatch(r"[A-Za-z][\w.\[\]]*=.*", text, re.DOTALL)
            (settings if is_setting else rest).append(text)
            option = self._option_string_actions.get(text)
            is_value = option is not None and option.nargs != 0
        return self.parse_args(rest), settings

    def error(self, message: str) -> NoReturn:
        """Print the message and where to read on; exit with status 2."""
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n  see `{self.prog} --help`\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            text = f"{value!r} is not a choice{did_you_mean(str(value), names)}; choose from {', '.join(names)}"
            raise argparse.ArgumentError(action, text)


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """ "; did you mean NAME?" for the most similar name, "" where none is similar."""
    near = difflib.get_close_matches(text, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number in decimal digits, from `minimum` to `maximum`, both included."""
    accepted = f"a whole number{_span(minimum, maximum, None)}"

    def read(text: str) -> int:
        if re.fullmatch(r"[+-]?\d{1,40}", text, re.ASCII) and _inside(int(text), minimum, maximum, None):
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}: give {accepted}")

    return read


def number(
    minimum: float | None = None, maximum: float | None = None, *, above: float | None = None
) -> Callable[[str], float]:
    """An argparse type: a finite decimal number from `minimum`, or above `above`, to `maximum`. NaN is refused."""
    accepted = f"a number{_span(minimum, maximum, above)}"

    def read(text: str) -> float:
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
            value = float(text)
            if math.isfinite(value) and _inside(value, minimum, maximum, above):
                return value
        raise argparse.ArgumentTypeError(f"{text!r}: give {accepted}")

    return read


def _inside(value: float, minimum: float | None, maximum: float | None, above: float | None) -> bool:
    inside = (minimum is None or value >= minimum) and (maximum is None or value <= maximum)
    return inside and (above is None or value > above)


def _span(minimum: float | None, maximum: float | None, above: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    parts = [(minimum, "of at least"), (above, "above"), (maximum, "of at most")]
    found = [f"{words} {limit}" for limit, words in parts if limit is not None]
    return f" {' and '.join(found)}" if found else ""
