"""`raytensor migrate`: a validator of Bittensor's subnet template goes on here, with its scores.

In: the template's state.npz (step, scores and hotkeys; never read with pickle) and its flags. Out: a run folder with
the score board, and a script with the command that starts `raytensor validate` on it. Nothing is written before all of
it was checked; a folder that has a board already is refused.
Source of the format: template/base/validator.py (`save_state`) of opentensor/bittensor-subnet-template.
"""

import argparse
import shlex
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raytensor import config, disk
from raytensor.arguments import Parser
from raytensor.chain import ss58
from raytensor.commands import options, output
from raytensor.config import old_flags
from raytensor.errors import ConfigError, DataError
from raytensor.mechanisms.evidence import Evidence, State
from raytensor.types import Value
from raytensor.validators.scoreboard import ScoreBoard

MAX_STATE_BYTES = 64 * 2**20  # unpacked; 65,536 hotkeys take 13 MB
# Mechanisms of this package -> what its state says of a miner, given the template's score. The others keep numbers that
# a score can't give.
VALUES: dict[str, Callable[[float], dict[str, Value]]] = {
    "raytensor.mechanisms.query.QueryMechanism": lambda score: {"value": score, "presence": 1.0}
}
WALLET, LOGS = (*old_flags.WALLET, "wallet.path"), "logging.logging_dir"
ABOUT = """\
Moves a validator that was built on Bittensor's subnet template: reads its state.npz, and writes the score board and a
script with the command that continues as `raytensor validate`. The template's flags are understood as they were typed.
KEY=VALUE are settings of `raytensor validate`.
Scores are kept by hotkey; a miner that has left the subnet since loses its score at the first round.
"""
EXAMPLES = """\
  raytensor migrate --netuid 5 --wallet.name cold --wallet.hotkey hot1 mechanism.path=mypackage.rules.Mine --score ema
  raytensor migrate --state old/state.npz --netuid 5 --wallet.name cold --wallet.hotkey hot1 --neuron.name mine
  raytensor migrate ... --dry-run            read and check the state, print what would be written
"""


@dataclass(frozen=True)
class OldState:
    """What the template's validator had saved.

    scores   by hotkey, finite, >= 0.
    num_nan  scores that were not finite, which are left out.
    """

    step: int
    scores: dict[str, float]
    num_nan: int


def migrate_main(argv: Sequence[str]) -> int:
    """`raytensor migrate ...`: returns the exit status."""
    flags = old_flags.flags(argv)
    args, typed = _parser().parse_with_settings([*old_flags.others(argv), *_typed(flags, *WALLET)])
    flags |= _wallet_flags(args)
    settings, notes = old_flags.translate("validate", _typed(flags, *(name for name in flags if name != LOGS)))
    settings += typed
    cfg = config.compose("validate", [*options.job_settings(), *settings])
    if len(cfg.netuids) != 1 or len(cfg.hotkeys) != 1:
        raise ConfigError(
            "give one --netuid and one --wallet.name with --wallet.hotkey: a state.npz is of one validator"
        )
    netuid, validator = cfg.netuids[0], options.hotkey_ref(args).ss58
    source = args.state or default_path(flags, netuid, cfg.name)
    old = read_state(source)
    values = _values_of(cfg.mechanism.path, args.score)
    board = ScoreBoard(netuid, validator, _Unused(), cfg.mechanism.path)
    board.state = State(old.step, {hotkey: values(score) for hotkey, score in old.scores.items()})
    folder = Path(cfg.paths.runs).expanduser() / cfg.name
    target, script = folder / f"netuid{netuid}" / validator / "board.json", folder / "validate.sh"
    command = shlex.join(["raytensor", "validate", *settings])
    if target.exists():
        raise ConfigError(f"{target} exists: another --neuron.name writes another folder")
    if not args.dry_run:
        board.save(target, saved_at=time.time())
        disk.write_text(
            script, f"#!/bin/sh\n# Continues the validator that was read from {source}.\nexec {command}\n", mode=0o755
        )
    _report(args, old, notes, {"board": str(target), "script": str(script), "command": command})
    return 0


def read_state(path: Path) -> OldState:
    """The template's state.npz. Raises `DataError` for a file that is not one; nothing of it is ever unpickled."""
    advice = "`raytensor validate` starts with new scores where there is no state"
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(entry.file_size for entry in archive.infolist())) > MAX_STATE_BYTES:
                raise DataError(
                    f"{path}: {size} bytes unpacked, more than {MAX_STATE_BYTES}; it is no state of a validator"
                )
        with np.load(path, allow_pickle=False) as arrays:
            step, scores, hotkeys = (np.asarray(arrays[name]) for name in ("step", "scores", "hotkeys"))
    except FileNotFoundError:
        raise DataError(f"there is no {path}; name the file with --state FILE") from None
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is no state.npz ({error}); a .pt file of older templates is pickle: {advice}"
        ) from error
    except KeyError as error:
        raise DataError(f"{path} lacks the array {error}: it is no state of the template's validator") from error
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} can't be read: {error}; nothing in it is unpickled. {advice}") from error
    if scores.ndim != 1 or scores.dtype.kind != "f" or hotkeys.ndim != 1 or hotkeys.dtype.kind != "U":
        what = f"scores {scores.dtype}{list(scores.shape)}, hotkeys {hotkeys.dtype}{list(hotkeys.shape)}"
        raise DataError(f"{path}: {what}; they must be numbers and texts, one of each for every uid")
    if len(scores) != len(hotkeys):
        raise DataError(f"{path}: {len(scores)} scores for {len(hotkeys)} hotkeys; which is whose can't be told")
    if step.size != 1 or step.dtype.kind not in "iu" or int(step.reshape(())) < 0:
        raise DataError(f"{path}: step={step!r} is no number of a round")
    names = [str(name) for name in hotkeys]
    for name in names:
        try:
            ss58.decode(name)
        except ValueError as error:
            raise DataError(f"{path}: {name!r} is no hotkey: {error}") from None
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a hotkey is in it twice")
    pairs = [(name, float(score)) for name, score in zip(names, scores, strict=True)]
    if negative := [f"{name} {score}" for name, score in pairs if score < 0]:
        raise DataError(f"{path}: negative scores can't become weights: {negative[0]}")
    kept = {name: score for name, score in pairs if np.isfinite(score)}
    return OldState(int(step.reshape(())), kept, len(pairs) - len(kept))


def default_path(flags: Mapping[str, str], netuid: int, name: str) -> Path:
    """Where the template keeps its state: <logging_dir>/<wallet>/<hotkey>/netuid<N>/<neuron.name>/state.npz."""
    logs = Path(flags.get(LOGS, "~/.bittensor/miners")).expanduser()
    keys = Path(flags.get("wallet.name", "default"), flags.get("wallet.hotkey", "default"))
    return logs / keys / f"netuid{netuid}" / flags.get("neuron.name", name) / "state.npz"


class _Unused:
    """The mechanism of a board that is only saved."""

    def reduce(self, state: State, evidence: Evidence) -> State:
        raise AssertionError("a board that is migrated reduces nothing")

    def weights(self, state: State) -> dict[str, float]:
        raise AssertionError("a board that is migrated weighs nothing")


def _parser() -> Parser:
    to = options.parser("migrate", ABOUT, EXAMPLES)
    options.add_output(to)
    to.add_argument("--state", type=Path, metavar="FILE", help="state.npz (default: where the template keeps it)")
    text = "name under which that mechanism's state keeps a miner's moving average"
    to.add_argument("--score", metavar="NAME", help=text)
    to.add_argument("--dry-run", action="store_true", help="check everything and print it; write nothing")
    options.add_wallet(to)
    return to


def _wallet_flags(args: argparse.Namespace) -> dict[str, str]:
    given = zip(WALLET, (args.wallet_name, args.wallet_hotkey, args.wallet_path), strict=True)
    return {name: value for name, value in given if value}


def _typed(flags: Mapping[str, str], *names: str) -> list[str]:
    """Those flags as arguments."""
    given = {name: flags[name] for name in names if name in flags}
    return [f"--{name}" if name in old_flags.SWITCHES else f"--{name}={value}" for name, value in given.items()]


def _values_of(path: str, score_name: str | None) -> Callable[[float], dict[str, Value]]:
    """What the state says of a miner of that score."""
    if score_name:
        return lambda score: {score_name: score}
    if path not in VALUES:
        fix = "name the moving average in its state with --score NAME"
        raise ConfigError(f"what {path} keeps of a miner is not known here: {fix}")
    return VALUES[path]


def _report(args: argparse.Namespace, old: OldState, notes: list[str], written: dict[str, str]) -> None:
    facts = {"round": old.step, "num_scores": len(old.scores), "num_not_finite": old.num_nan, "notes": notes, **written}
    if args.json:
        output.show_json(facts)
        return
    verb = "would write" if args.dry_run else "wrote"
    lost = f", {old.num_nan} that were not finite are left out" if old.num_nan else ""
    print(f"{len(old.scores)} scores after {old.step} steps{lost}")
    print(f"{verb} {written['board']}\n{verb} {written['script']}:\n  {written['command']}")
    for note in notes:
        print(f"note: {note}")
