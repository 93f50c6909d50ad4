"""`raytensor devnet` and `python -m raytensor.devnet`: one node as a process.

In: command-line arguments. Out: what node.py prints, and exit code 0 after SIGTERM or SIGINT.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import Parser, integer, number
from raytensor.errors import ConfigError, RayTensorError

DEFAULT_BLOCK_TIME = "12"
ABOUT = """\
A Bittensor chain on this machine: Subtensor's pallets, calls, storage and RPC in one process on one loopback port.
The accounts //Alice (sudo), //Bob and //Charlie own 1,000,000 TAO each; //Dave, //Eve and //Ferdie own 2,000 each.
"""
EXAMPLES = """\
  raytensor devnet                              12 s blocks on ws://127.0.0.1:9944, kept in memory only
  raytensor devnet --block-time 0.25            fast blocks
  raytensor devnet --block-time instant         a block for each extrinsic, at once
  raytensor devnet --block-time manual          a block per request: RPC dev_newBlock [{"count": 1}]
  raytensor devnet --finality-lag 3             can drop its last blocks: RPC dev_rollBack [{"count": 2, "keep": false}]
  raytensor devnet --state ~/chain              store the chain; the same command continues it
  raytensor devnet --port 0                     a free port, printed in the first line

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
    made.add_argument("--quiet", action="store_true", help="no progress on standard error")
    made.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    return made


def devnet_main(argv: Sequence[str]) -> int:
    """`raytensor devnet`: run the node until it is stopped. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        time = block_time(DEFAULT_BLOCK_TIME if options.block_time is None else options.block_time)
        from raytensor.devnet.node import serve  # after the arguments are checked: --help and mistakes take no seconds

        return asyncio.run(serve(options, time))
    except RayTensorError as error:
        print(f"raytensor devnet: {error}", file=sys.stderr)
        return 2


def block_time(text: str) -> tuple[int, float | None, bool]:
    """(milliseconds per slot, seconds between blocks or None, whether instant) of a --block-time."""
    if text in ("instant", "manual"):
        return 12_000, None, text == "instant"
    try:
        seconds = number(0.05, 3600)(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--block-time: {error}, or instant, or manual") from None
    return round(seconds * 1000), seconds, False
