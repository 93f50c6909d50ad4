"""`raytensor devnet` and `python -m raytensor.devnet`: one node as a process.

In: command-line arguments. Out: one line of JSON on standard output once it serves
({"endpoint", "genesis", "spec_version", "pid"}), progress on standard error, exit code 0 after SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from raytensor.arguments import Parser, integer
from raytensor.errors import ConfigError, RayTensorError

DEFAULT_BLOCK_TIME = "12"
ABOUT = """\
A Bittensor chain on this machine: Subtensor's pallets, calls, storage and RPC in one process on one loopback port.
Accounts //Alice (sudo), //Bob and //Charlie own 1,000,000 TAO each, //Dave, //Eve, //Ferdie 2,000.
"""
EXAMPLES = """\
  raytensor devnet                              12 s blocks on ws://127.0.0.1:9944, kept in memory
  raytensor devnet --block-time 0.25            fast blocks
  raytensor devnet --block-time instant         a block for every extrinsic, at once
  raytensor devnet --block-time manual          a block when you ask: RPC dev_newBlock [{"count": 1}]
  raytensor devnet --finality-lag 3             may lose its last blocks: RPC dev_rollBack [{"count": 2, "keep": false}]
  raytensor devnet --state ~/chain              keeps the chain there; the same command continues at its last block
  raytensor devnet --port 0                     a free port; the first line printed names it

connect:
  btcli subnets list --network ws://127.0.0.1:9944
  SubstrateInterface(url="ws://127.0.0.1:9944")
"""


def parser() -> Parser:
    """The parser of `raytensor devnet`."""
    made = Parser("raytensor devnet", description=ABOUT, examples=EXAMPLES)
    made.add_argument(
        "--port", type=integer(0, 65535), default=9944, help="loopback port; 0 takes a free one (default 9944)"
    )
    made.add_argument(
        "--block-time", metavar="SECONDS|instant|manual", help="when blocks are made (default 12, or that of --state)"
    )
    text = "blocks between the best and the finalized one (default 0)"
    made.add_argument("--finality-lag", type=integer(0, 10**6), default=0, metavar="N", help=text)
    made.add_argument("--state", type=Path, metavar="DIR", help="keep the chain in this folder (default: in memory)")
    text = "blocks whose state can be read (default 4096)"
    made.add_argument("--history", type=integer(16, 10**9), default=4096, metavar="BLOCKS", help=text)
    made.add_argument("--quiet", action="store_true", help="no progress on standard error")
    made.add_argument("--exit-with-stdin", action="store_true", help="end when standard input ends")
    return made


def devnet_main(argv: Sequence[str]) -> int:
    """`raytensor devnet`: run the node until a signal. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        return asyncio.run(_serve(options))
    except RayTensorError as error:
        print(f"raytensor devnet: {error}", file=sys.stderr)
        return 2


def block_time(text: str) -> tuple[int, float | None, bool]:
    """(milliseconds of a slot, seconds between blocks or None, instant) of a --block-time."""
    if text in ("instant", "manual"):
        return 12_000, None, text == "instant"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 3600:
        raise ConfigError(f"--block-time: {text!r}: give seconds between 0.05 and 3600, or instant, or manual")
    return round(seconds * 1000), seconds, False


async def _serve(options: argparse.Namespace) -> int:
    slot_ms, interval_s, instant = block_time(DEFAULT_BLOCK_TIME if options.block_time is None else options.block_time)
    # Imports after the arguments are known, so that --help and a typo answer at once.
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
                    f"--state {options.state} was made with --block-time {int(kept) / 1000:g}, which its metadata "
                    f"promise to clients; leave --block-time out, or name another folder"
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
                f"port {options.port} can't be had ({os.strerror(error.errno)}); end what uses it, or take --port 0 "
                f"for a free one"
            ) from None
        if not options.quiet:
            chain.listeners.append(_report)
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


async def _until_stopped(author, watch_stdin: bool) -> None:
    """Until a signal, the end of standard input, or a block that could not be made (raises its cause)."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if watch_stdin:
        # A thread, since the event loop can't wait for files and /dev/null; it reads past Python's buffer, whose lock
        # must not be held when the interpreter ends.
        threading.Thread(target=_drain_stdin, args=(loop, stopped), daemon=True).start()
    stopping = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({stopping, author.failure}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if author.failure.done():
        author.failure.result()


def _drain_stdin(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    while os.read(0, 65536):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended before us
        loop.call_soon_threadsafe(stopped.set)


def _report(block, changes) -> None:
    print(f"block {block.number} 0x{block.hash.hex()[:8]} extrinsics {len(block.extrinsics) - 1}", file=sys.stderr)


def _raise_file_limit() -> None:
    """A thousand sockets need a thousand file descriptors; the usual soft limit is about that."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(8192, hard) if hard != resource.RLIM_INFINITY else 8192
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
