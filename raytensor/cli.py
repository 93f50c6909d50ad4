"""The `raytensor` command: finds the function of a command, prints its errors, returns its exit status.

In: the command line. Out: an exit status: 0 done, 1 failed, 2 a mistake in the command line or the configuration,
130 stopped by Ctrl-C. Knows nothing of what a command does; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from raytensor import __version__
from raytensor.errors import ConfigError, RayTensorError

# command -> (function that takes the remaining arguments and returns the exit status, what it does)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("raytensor.jobs.run.job:run_main", "run a whole network: chain, miners, validators, consensus"),
    "train": ("raytensor.jobs.train:train_main", "train one large model with Ray Train, over GPUs and nodes"),
    "validate": (
        "raytensor.jobs.validate.job:validate_main",
        "validate any number of subnets with any number of hotkeys",
    ),
    "sweep": ("raytensor.jobs.sweep.job:sweep_main", "search good settings for a miner"),
    "query": ("raytensor.commands.query:query_main", "ask a subnet's best miners to go on with a text"),
    "devnet": ("raytensor.devnet.cli:main", "serve the embedded development chain by itself"),
    "report": ("raytensor.telemetry.report:report_main", "write the report of a run folder again"),
    "replay": ("raytensor.commands.replay:replay_main", "make the weights of an evidence log again, to the bit"),
    "consensus": ("raytensor.commands.consensus_chain:main", "what the chain would pay: check vectors, ask what-if"),
    "wallet": ("raytensor.commands.wallet:wallet_main", "make, list, restore keys; balance; sign, verify"),
    "transfer": ("raytensor.commands.transfer:transfer_main", "send TAO to an account"),
    "stake": ("raytensor.commands.stake:stake_main", "add, remove, move, swap, give, list stake; take, children"),
    "register": ("raytensor.commands.register:register_main", "register a hotkey on a subnet"),
    "subnets": ("raytensor.commands.subnets:subnets_main", "the subnets of a chain"),
    "metagraph": ("raytensor.commands.metagraph:metagraph_main", "the neurons of a subnet"),
    "weights": ("raytensor.commands.weights:weights_main", "are weights in time, and why not; set, commit, reveal"),
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

`raytensor COMMAND --help` teaches each command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<12} {text}" for name, (_, text) in COMMANDS.items())), end="")
        return 0
    if args[0] in ("-V", "--version"):
        print(f"raytensor {__version__}")
        return 0
    if args[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        print(
            f"raytensor: no command {args[0]!r}"
            + (f"; did you mean {near[0]}?" if near else "; `raytensor --help` lists them"),
            file=sys.stderr,
        )
        return 2
    module, function = COMMANDS[args[0]][0].split(":")
    try:
        return getattr(importlib.import_module(module), function)(args[1:])
    except ConfigError as error:
        print(f"raytensor {args[0]}: {error}", file=sys.stderr)
        return 2
    except RayTensorError as error:
        print(f"raytensor {args[0]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"raytensor {args[0]}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        return 1
