"""`raytensor devnet` and `python -m raytensor.devnet`: one node as a process.

In: command-line arguments. Out: one line of JSON on standard output once the node serves
({"endpoint", "genesis", "spec_version", "pid"}), progress on standard error, exit code 0 after SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    made.add_argument("--quiet", action="store_true", help="no progress on standard error")
    made.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    return made


def devnet_main(argv: Sequence[str]) -> int:
    """`raytensor devnet`: run the node until it is stopped. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        return asyncio.run(_serve(options))
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


async def _serve(options: argparse.Namespace) -> int:
    slot_ms, interval_s, instant = block_time(DEFAULT_BLOCK_TIME if options.block_time is None else options.block_time)
    # Imported once the arguments are checked, so that --help and mistakes are answered at once.
    from raytensor.devnet.author import Author
    from raytensor.devnet.chain import Chain
    from raytensor.devnet.chain_spec import build_runtime
    from raytensor.devnet.gc_freeze import avoid_long_collections
    from raytensor.devnet.persist import Disk
    from raytensor.devnet.rpc import NodeRpc
    from raytensor.devnet.server import Server
    from raytensor.devnet.warm_up import warm_up

    _raise_file_limit()
    disk = Disk(options.state) if options.state else None
    try:
        if disk is not None and (kept := disk.meta("block_time_ms")) is not None:
            if options.block_time is None:
                slot_ms = int(kept)
                interval_s = slot_ms / 1000
            elif interval_s is not None and slot_ms != int(kept):
                raise ConfigError(
                    f"--state {options.state} was created with --block-time {int(kept) / 1000:g}, and its metadata say "
                    f"so to clients; omit --block-time, or name another folder"
                )
            else:
                slot_ms = int(kept)
        runtime = build_runtime(block_time_ms=slot_ms, history_blocks=options.history)
        chain = Chain(runtime, finality_lag=options.finality_lag, disk=disk)
        author = Author(chain, interval_s=interval_s, instant=instant)
        server = Server(NodeRpc(chain, author))
        try:
            port = await server.start(options.port)
        except OSError as error:
            raise ConfigError(
                f"port {options.port} is not available ({os.strerror(error.errno or 0)}); end the process that uses "
                f"it, or choose a free one with --port 0"
            ) from None
        if not options.quiet:
            chain.listeners.append(_print_block)
        avoid_long_collections(chain)
        author.start()
        warm_up(runtime)
        ready = {
            "endpoint": f"ws://127.0.0.1:{port}",
            "genesis": f"0x{chain.genesis.hash.hex()}",
            "spec_version": runtime.version.spec_version,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        try:
            await _until_stopped(author, options.exit_with_stdin)
        finally:
            await author.stop()
            await server.stop()
    finally:
        if disk is not None:
            disk.close()
    return 0


async def _until_stopped(author: Any, watch_stdin: bool) -> None:
    """Wait for a signal, the end of standard input, or a block that could not be sealed (raises its cause)."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopped.set)
    if watch_stdin:
        # A thread, since the event loop cannot wait for files or /dev/null. It reads the descriptor itself: the lock of
        # Python's buffer must not be held when the interpreter ends.
        threading.Thread(target=_drain_stdin, args=(loop, stopped), daemon=True).start()
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({stopping, author.failure}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if author.failure.done():
        author.failure.result()


def _drain_stdin(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    while os.read(0, 65536):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stopped.set)


def _print_block(block: Any, changes: list) -> None:
    print(f"block {block.number} 0x{block.hash.hex()[:8]} extrinsics {len(block.extrinsics) - 1}", file=sys.stderr)


def _raise_file_limit() -> None:
    """Allow for some thousand sockets; the usual soft limit is 1,024 file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(8192, hard) if hard != resource.RLIM_INFINITY else 8192
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
