"""The `raytensor` command itself: registration, suggestions, ranges of numbers, and what a failure looks like."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raytensor import cli
from raytensor.arguments import integer, number
from raytensor.errors import ChainRefused, ConfigError, WireError

ROOT = Path(__file__).resolve().parent.parent / "raytensor"


def broken_main(argv: list[str]) -> int:
    """A command with a fault of its own."""
    return 1 // len(argv)


def refused_main(argv: list[str]) -> int:
    raise {
        "config": ConfigError("rounds: 0; give at least 1"),
        "chain": ChainRefused("the chain said no", name="TooFast", action="wait: 10 blocks"),
        "wire": WireError("too old", fix="set the clock"),
    }[argv[0]]


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The two commands above beside the real ones; tracebacks go to the test's folder."""
    monkeypatch.setenv("RAYTENSOR_HOME", str(tmp_path))
    monkeypatch.delenv("RAYTENSOR_TRACEBACK", raising=False)
    monkeypatch.setitem(sys.modules, "a_faulty_command", sys.modules[__name__])
    monkeypatch.setitem(cli.COMMANDS, "broken", ("a_faulty_command:broken_main", "divides by zero"))
    monkeypatch.setitem(cli.COMMANDS, "refused", ("a_faulty_command:refused_main", "raises our errors"))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_of_the_table_exists_and_is_named_after_itself(name):
    module, function = cli.COMMANDS[name][0].split(":")
    assert function == f"{name.replace('-', '_')}_main" and callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", ["query", "devnet", "report", "replay", "consensus", "wallet", "transfer", "stake"])
def test_help_ends_with_examples_and_a_misspelt_option_is_refused(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert "examples:" in capsys.readouterr().out
    assert cli.main([name, "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, message",
    [
        (["stakes"], "there is no command 'stakes'; did you mean stake?"),
        (["zzz"], "`raytensor --help` lists the commands"),
        (["register", "--netuidd", "2"], "there is no option --netuidd; did you mean --netuid?"),
        (["wallet", "lst"], "'lst' is not a choice; did you mean list?"),
        (["stake", "add", "1", "--slipage", "1%"], "there is no option --slipage; did you mean --slippage?"),
        (["devnet", "--blocktime=1"], "there is no option --blocktime; did you mean --block-time?"),
        (["metagraph", "1", "--sort", "stak"], "'stak' is not a choice; did you mean stake?"),
        (["transfer", "a", "1", "extra"], "unexpected argument 'extra'"),
    ],
)
def test_mistakes_are_one_line_with_a_suggestion(argv, message, capsys):
    assert cli.main(argv) == 2
    found = capsys.readouterr().err
    assert message in found and "usage:" not in found and "Traceback" not in found


NUMBERS = [
    ["query", "--prompt", "x", "--top"],
    ["query", "--prompt", "x", "--tokens"],
    ["query", "--prompt", "x", "--context"],
    ["query", "--prompt", "x", "--top-k"],
    ["query", "--prompt", "x", "--temperature"],
    ["query", "--prompt", "x", "--seed"],
    ["query", "--prompt", "x", "--deadline"],
    ["query", "--prompt", "x", "--netuid"],
    ["devnet", "--port"],
    ["devnet", "--finality-lag"],
    ["devnet", "--history"],
    ["devnet", "--block-time"],
    ["replay", "x", "--until"],
    ["consensus", "--netuid", "1", "--epochs"],
    ["consensus", "--netuid", "1", "--top"],
    ["consensus", "snapshot", "x", "--netuid"],
    ["metagraph", "1", "--top"],
    ["metagraph", "1", "--epochs"],
    ["metagraph", "1", "--mechanism"],
    ["metagraph", "1", "--timeout"],
    ["subnets"],
    ["transfer", "//Alice"],
    ["transfer", "//Alice", "1", "--wait"],
    ["register", "--netuid", "1", "--max-burn"],
    ["stake", "add", "1", "--netuid", "1", "--slippage"],
    ["stake", "take"],
    ["weights", "status", "--overdue"],
    ["weights", "set", "--netuid", "1", "--version-key"],
    ["weights", "set", "--netuid", "1", "--mechanism"],
]


@pytest.mark.parametrize("argv", NUMBERS, ids=" ".join)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e999", "１", "9" * 5000, ""])
def test_every_numeric_option_has_a_range(argv, value, capsys):
    assert cli.main([*argv[:-1], f"{argv[-1]}={value}"] if argv[-1].startswith("--") else [*argv, value]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_no_option_is_a_bare_int_or_float():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    bare = keyword.arg == "type" and isinstance(keyword.value, ast.Name)
                    assert not (bare and keyword.value.id in ("int", "float")), f"{path}:{node.lineno}"


def test_numbers_are_read_exactly_or_refused_with_the_range():
    assert integer(1, 5)("5") == 5 and number(above=0, maximum=2)("1e-3") == 0.001
    for read, text, message in [
        (integer(1, 5), "6", "'6': give a whole number from 1 to 5"),
        (integer(1), "1.5", "'1.5': give a whole number of at least 1"),
        (number(above=0), "0", "'0': give a number above 0"),
        (number(above=0, maximum=10), "nan", "'nan': give a number above 0 and of at most 10"),
        (number(), "1_0", "'1_0': give a number"),
    ]:
        with pytest.raises(Exception, match="give") as caught:
            read(text)
        assert str(caught.value) == message


def test_an_unexpected_exception_is_one_line_and_its_traceback_a_file(commands, capsys, tmp_path, monkeypatch):
    assert cli.main(["broken"]) == 1
    (file,) = (tmp_path / "tracebacks").iterdir()
    assert "in broken_main" in file.read_text() and file.stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().err == (
        "raytensor broken: ZeroDivisionError: integer division or modulo by zero (this is a fault of RayTensor: please "
        f"report it with the traceback; the traceback is in {file})\n"
    )
    monkeypatch.setenv("RAYTENSOR_TRACEBACK", "1")
    assert cli.main(["broken"]) == 1
    found = capsys.readouterr().err
    assert found.startswith("Traceback") and found.endswith("the traceback is above)\n")


def test_our_errors_have_one_shape(commands, capsys):
    shown = {}
    for kind in ("config", "chain", "wire"):
        shown[kind] = (cli.main(["refused", kind]), capsys.readouterr().err)
    assert shown == {
        "config": (2, "raytensor refused: rounds: 0; give at least 1\n"),
        "chain": (1, "raytensor refused: the chain said no (TooFast)\n  wait: 10 blocks\n"),
        "wire": (1, "raytensor refused: too old\n  fix: set the clock\n"),
    }


def test_a_reader_that_ends_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "raytensor", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=240
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")
