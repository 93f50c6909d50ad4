"""The `raytensor` command: finds the function of a command, prints its errors, returns its exit status.

In: the command line. Out: an exit status: 0 done, 1 failed, 2 a mistake in the command line or the configuration,
130 stopped by Ctrl-C. An exception that is not RayTensor's own becomes one line; its traceback goes to a file.
Knows nothing of what a command does; imports nothing heavy before it is needed.
"""

import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from raytensor import __version__, disk
from raytensor.arguments import did_you_mean
from raytensor.commands.output import exit_status, print_error
from raytensor.errors import RayTensorError, cause_of

TRACEBACK_ENV = "RAYTENSOR_TRACEBACK"

# The one place that registers a command: name -> (module:function, what it does). The function takes the remaining
# arguments and returns the exit status.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("raytensor.jobs.run.job:run_main", "run a whole network: chain, miners, validators, consensus"),
    "train": ("raytensor.jobs.train:train_main", "train one large model with Ray Train, over GPUs and nodes"),
    "mine": ("raytensor.jobs.mine.job:mine_main", "mine with your own hotkeys on any subnets"),
    "validate": ("raytensor.jobs.validate.job:validate_main", "validate any number of subnets with any hotkeys"),
    "gateway": ("raytensor.jobs.gateway.job:gateway_main", "serve an OpenAI-compatible API in front of miners"),
    "sweep": ("raytensor.jobs.sweep.job:sweep_main", "search good settings for a miner"),
    "evaluate": ("raytensor.commands.evaluate:evaluate_main", "measure a model's loss on held-out text"),
    "data": ("raytensor.commands.data:data_main", "tokenize a corpus into memory-mapped shards; show, verify them"),
    "query": ("raytensor.commands.query:query_main", "ask a subnet's best miners to continue a text"),
    "new-subnet": ("raytensor.commands.new_subnet:new_subnet_main", "write a subnet package of your own"),
    "devnet": ("raytensor.devnet.cli:devnet_main", "serve the embedded development chain"),
    "migrate": ("raytensor.commands.migrate:migrate_main", "continue a validator of Bittensor's subnet template"),
    "report": ("raytensor.commands.report:report_main", "write the report of a run folder again"),
    "replay": ("raytensor.commands.replay:replay_main", "recompute the weights of an evidence log and compare them"),
    "consensus": ("raytensor.commands.consensus:consensus_main", "compute what a subnet pays; check test vectors"),
    "snapshot": ("raytensor.commands.snapshot:snapshot_main", "write the state of a subnet to a file, to fork it"),
    "wallet": ("raytensor.commands.wallet:wallet_main", "create, list, restore keys; balance; sign, verify"),
    "transfer": ("raytensor.commands.transfer:transfer_main", "send TAO to an account"),
    "stake": ("raytensor.commands.stake:stake_main", "add, remove, move, swap, transfer, list stake; take, children"),
    "proxy": ("raytensor.commands.proxy:proxy_main", "let other keys act for an account; list, remove them"),
    "register": ("raytensor.commands.register:register_main", "register a hotkey on a subnet"),
    "serve": ("raytensor.commands.serve:serve_main", "publish the address of a hotkey's server"),
    "subnets": ("raytensor.commands.subnets:subnets_main", "list, create, start, configure, show subnets"),
    "call": ("raytensor.commands.generated:call_main", "send any call of the chain, by its name"),
    "read": ("raytensor.commands.generated:read_main", "read any storage item of the chain"),
    "api": ("raytensor.commands.generated_api:api_main", "ask any runtime API of the chain"),
    "metagraph": ("raytensor.commands.metagraph:metagraph_main", "list the neurons of a subnet"),
    "weights": ("raytensor.commands.weights:weights_main", "check, set, commit and reveal a validator's weights"),
}

HELP = """usage: raytensor COMMAND [arguments]

Runs a Bittensor network on a Ray cluster: miners that train and answer, validators that score them, and a
chain whose consensus pays them.

commands:
{commands}

start here:
  raytensor run                          a whole network on this machine, about two minutes
  raytensor run name=demo rounds=20      with settings; `raytensor run --help` lists them all
  raytensor run experiment=cheats        five honest miners beside five that cheat
  raytensor sweep                        24 small models with different settings: which learns best?
  raytensor devnet                       only the chain, for your own client or subnet

`raytensor COMMAND --help` explains each command, with examples.
"""

# What to do about an exception that no command expects; the first class that matches.
_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (ImportError, "a package is missing or broken: install RayTensor again"),
    (MemoryError, "this machine has too little memory: choose smaller settings"),
    (OSError, "check that file, disk or address"),
    (Exception, "this is a fault of RayTensor: please report it with the traceback"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has ended, as `| head` does
        if sys.stdout is sys.__stdout__:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it exits
        return 1


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items())), end="")
        return 0
    if args[0] in ("-V", "--version"):
        print(f"raytensor {__version__}")
        return 0
    name = args[0]
    if name not in COMMANDS:
        advice = did_you_mean(name, COMMANDS) or "; `raytensor --help` lists the commands"
        print(f"raytensor: there is no command {name!r}{advice}", file=sys.stderr)
        return 2
    module, function = COMMANDS[name][0].split(":")
    try:
        return getattr(importlib.import_module(module), function)(args[1:])
    except RayTensorError as error:
        print_error(name, error)
        return exit_status(error)
    except SystemExit as end:  # argparse has printed its help (0) or an error (2)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        print(f"raytensor {name}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # the command's edge: an error that no command expects becomes one line
        _print_unexpected(name, error)
        return 1


def _print_unexpected(command: str, error: Exception) -> None:
    """One line with the cause, the advice and the file of the traceback; the traceback itself if asked for."""
    advice = next(text for kind, text in _ADVICE if isinstance(error, kind))
    cause = cause_of(error)
    if type(error).__name__ not in cause:
        cause = f"{type(error).__name__}: {cause}"
    if os.environ.get(TRACEBACK_ENV):
        traceback.print_exception(error)
        where = "the traceback is above"
    elif (file := _write_traceback(command, error)) is not None:
        where = f"the traceback is in {file}"
    else:
        where = f"{TRACEBACK_ENV}=1 prints the traceback"
    print(f"raytensor {command}: {cause} ({advice}; {where})", file=sys.stderr)


def _write_traceback(command: str, error: Exception) -> Path | None:
    """The new file (mode 600) with the traceback, None where neither folder can be written."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{command}-{os.getpid()}.log"
    for folder in (disk.home() / "tracebacks", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                traceback.print_exception(error, file=out)
            return folder / name
        except OSError:
            continue  # full or read-only: try the next folder
    return None
