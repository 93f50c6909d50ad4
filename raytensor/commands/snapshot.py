"""`raytensor snapshot`: the state of a subnet in one file, from which `raytensor devnet --from FILE` goes on.

In: an endpoint, netuids, a block. Out: the file; progress on standard error. Nothing is sent.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import integer
from raytensor.chain.reads.state import read_subnets
from raytensor.chain.reads.state_file import write_state
from raytensor.chain.rpc.client import ChainClient
from raytensor.commands import options, output
from raytensor.errors import ConfigError

ABOUT = """\
Writes the state of a subnet to a file: its neurons, stakes, weights, bonds, commits, hyperparameters and pool, root's
neurons, and the prices of the other subnets, all at one block. What exists is asked of the chain's metadata, so that
any runtime will do. `raytensor devnet --from FILE` starts a chain from it.
"""
EXAMPLES = """\
  raytensor snapshot finney --netuid 1 -o subnet1.state
  raytensor snapshot archive --netuid 1 --at 9240388 -o then.state
  raytensor snapshot ws://127.0.0.1:9944 --netuid 2 --netuid 3 -o both.state
  raytensor devnet --from subnet1.state --block-time 0.25
  raytensor devnet --from subnet1.state --tempos 100 set.kappa=0.6
"""


def snapshot_main(argv: Sequence[str]) -> int:
    """`raytensor snapshot ENDPOINT --netuid N -o FILE`. Returns the exit status."""
    parser = options.parser("snapshot", ABOUT, EXAMPLES)
    text = "finney, test, archive, local, or ws://host:port"
    parser.add_argument("endpoint", metavar="ENDPOINT", help=text)
    text = "the subnet; may be repeated"
    parser.add_argument("--netuid", type=options.netuid, action="append", required=True, metavar="N", help=text)
    parser.add_argument("--out", "-o", required=True, metavar="FILE", help="the file; an existing one is replaced")
    text = "the block whose state is read (default: the best one); older ones need an archive node"
    parser.add_argument("--at", type=integer(1, 2**32 - 1), metavar="BLOCK", help=text)
    text = "also the shares of every nominator of the neurons; many requests on a large chain"
    parser.add_argument("--nominators", action="store_true", help=text)
    text = "limit for each answer of the node (default 60)"
    parser.add_argument("--timeout", type=options.seconds, default=60.0, metavar="SECONDS", help=text)
    options.add_output(parser)
    return output.run("snapshot", parser, argv, _snapshot)


def _snapshot(args: argparse.Namespace) -> None:
    path = Path(args.out).expanduser()
    if not path.parent.is_dir():
        raise ConfigError(f"-o {args.out}: there is no such folder")
    begin = time.monotonic()
    with ChainClient(args.endpoint, args.timeout) as client:
        found = read_subnets(client, args.netuid, at=args.at, nominators=args.nominators, progress=_say)
    write_state(found, path)
    elapsed, num_neurons = time.monotonic() - begin, {n: len(found.neurons(n)) for n in found.netuids if n}
    head = {"file": str(path), "block": found.block, "block_hash": found.block_hash, "genesis": found.genesis}
    head |= {"spec_version": found.spec_version, "num_neurons": num_neurons, "num_entries": found.num_entries}
    head |= {"bytes": os.path.getsize(path), "sha256": found.digest, "elapsed_s": round(elapsed, 3)}
    neurons = ", ".join(f"subnet {netuid} with {count} neurons" for netuid, count in num_neurons.items())
    text = f"{path}: {neurons} at block {found.block}, {found.num_entries} entries, {head['bytes'] / 1e6:.1f} MB"
    left_out = f"; not read: {', '.join(found.left_out)}" if found.left_out else ""
    output.show(args, head | {"left_out": dict(found.left_out)}, f"{text}, {elapsed:.1f} s{left_out}")


def _say(text: str) -> None:
    print(f"raytensor snapshot: {text}", file=sys.stderr)
