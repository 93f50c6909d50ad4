"""`raytensor devnet` and `python -m raytensor.devnet`: one node as a process.

In: command-line arguments. Out: what node.py prints, and exit code 0 after SIGTERM or SIGINT.
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import Parser, integer, number
from raytensor.errors import ConfigError, RayTensorError

DEFAULT_BLOCK_TIME = "12"
ABOUT = """\
A Bittensor chain on this machine: Subtensor's pallets, calls, storage and RPC in one process on one loopback port.
The accounts //Alice (sudo), //Bob and //Charlie own 1,000,000 TAO each; //Dave, //Eve and //Ferdie own 2,000 each.

With --from or --fork the chain goes on from the state of a subnet of another chain. With --tempos it plays that many
tempos of the subnet at once, as it is and with changes, and prints who earns what; changes are those of
`raytensor consensus` (set.kappa=0.6, set.weights.HOTKEY=FILE, set.yuma3=true).
"""
EXAMPLES = """\
  raytensor devnet                              12 s blocks on ws://127.0.0.1:9944, kept in memory only
  raytensor devnet --block-time 0.25            fast blocks
  raytensor devnet --block-time instant         a block for each extrinsic, at once
  raytensor devnet --block-time manual          a block per request: RPC dev_newBlock [{"count": 1}]
  raytensor devnet --finality-lag 3             can drop its last blocks: RPC dev_rollBack [{"count": 2, "keep": false}]
  raytensor devnet --state ~/chain              store the chain; the same command continues it
  raytensor devnet --port 0                     a free port, printed in the first line
  raytensor devnet --from subnet1.state         go on from a file of `raytensor snapshot`
  raytensor devnet --fork finney --netuid 1 --key uid:3=//Miner   a fork in which uid 3 is //Miner
  raytensor devnet --from subnet1.state --tempos 100 set.kappa=0.6

connect:
  btcli subnets list --network ws://127.0.0.1:9944
  SubstrateInterface(url="ws://127.0.0.1:9944")
"""


def parser() -> Parser:
    """The parser of `raytensor devnet`."""
    made = Parser("raytensor devnet", description=ABOUT, examples=EXAMPLES)
    text = "loopback port; 0 chooses a free one (default 9944)"
    made.add_argument("--port", type=integer(0, 65535), default=9944, help=text)
    text = "when blocks are sealed (default 12, or that of the state)"
    made.add_argument("--block-time", metavar="SECONDS|instant|manual", help=text)
    text = "blocks between the best and the finalized one (default 0)"
    made.add_argument("--finality-lag", type=integer(0, 10**6), default=0, metavar="N", help=text)
    made.add_argument("--state", type=Path, metavar="DIR", help="store the chain in this folder; default: memory only")
    text = "number of past blocks whose state is readable (default 4096)"
    made.add_argument("--history", type=integer(16, 10**9), default=4096, metavar="BLOCKS", help=text)
    text = "let web pages of this origin call, for example https://polkadot.js.org; * allows all; may be repeated"
    made.add_argument("--allow-origin", action="append", default=[], metavar="URL", help=text)
    _add_fork(made)
    made.add_argument("--quiet", action="store_true", help="no progress on standard error")
    made.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    return made


def _add_fork(to: Parser) -> None:
    group = to.add_argument_group("fork")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--from", dest="snapshot", type=Path, metavar="FILE", help="a file of `raytensor snapshot`")
    source.add_argument(
        "--fork", metavar="ENDPOINT", help="read the subnet from finney, test, archive or ws://host:port"
    )
    text = "the subnet; may be repeated with --fork"
    group.add_argument("--netuid", type=integer(1, 65535), action="append", metavar="N", help=text)
    text = "with --fork: the block whose state is read (default: the best one)"
    group.add_argument("--at", type=integer(1, 2**32 - 1), metavar="BLOCK", help=text)
    text = "put a key of yours in the place of an account: WHO is an address, uid:3, uid:3:coldkey or owner, KEY an "
    text += "address or //Name; may be repeated"
    group.add_argument("--key", action="append", default=[], metavar="WHO=KEY", help=text)
    text = "serve no node; play so many tempos and print who earns what"
    group.add_argument("--tempos", type=integer(1, 10**6), metavar="N", help=text)
    group.add_argument("--top", type=integer(1, 10**6), default=20, metavar="N", help="hotkeys to print (default 20)")
    group.add_argument("--json", action="store_true", help="with --tempos: print one JSON object")
    group.add_argument("changes", nargs="*", metavar="CHANGE", help="with --tempos: set.FIELD=VALUE, ...")


# What runs the node, by what is asked for; imported after the arguments are checked, so that --help takes no seconds.
_RUN = {
    "node": "raytensor.devnet.cli:serve_node",
    "fork": "raytensor.devnet.fork.job:serve_fork",
    "tempos": "raytensor.devnet.fork.job:play_fork",
}


def devnet_main(argv: Sequence[str]) -> int:
    """`raytensor devnet`: run the node until it is stopped. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        time = block_time(DEFAULT_BLOCK_TIME if options.block_time is None else options.block_time)
        module, function = _RUN[_kind(options)].split(":")
        return getattr(importlib.import_module(module), function)(options, time)
    except RayTensorError as error:
        print(f"raytensor devnet: {error}", file=sys.stderr)
        return 2


def serve_node(options: argparse.Namespace, time: tuple[int, float | None, bool]) -> int:
    """Serve a node with a genesis of its own, or the chain of --state."""
    return asyncio.run(importlib.import_module("raytensor.devnet.node").serve(options, time))


def _kind(options: argparse.Namespace) -> str:
    forks = options.snapshot is not None or options.fork is not None
    if options.tempos is None and options.changes:
        raise ConfigError(f"{options.changes[0]}: changes need --tempos N")
    if not forks and (options.tempos is not None or options.key or options.netuid):
        raise ConfigError("--tempos, --key and --netuid need --from FILE or --fork ENDPOINT")
    if not forks:
        return "node"
    return "fork" if options.tempos is None else "tempos"


def block_time(text: str) -> tuple[int, float | None, bool]:
    """(milliseconds per slot, seconds between blocks or None, whether instant) of a --block-time."""
    if text in ("instant", "manual"):
        return 12_000, None, text == "instant"
    try:
        seconds = number(0.05, 3600)(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--block-time: {error}, or instant, or manual") from None
    return round(seconds * 1000), seconds, False
