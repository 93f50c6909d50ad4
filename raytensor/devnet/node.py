"""One node as a process: the chain, its author and its server, until a signal or the end of standard input.

In: the options of `raytensor devnet`. Out: one line of JSON on standard output once the node serves
({"endpoint", "genesis", "spec_version", "pid"}), progress on standard error.
Waits for: the end. Knows nothing of how options are parsed (cli.py).
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

from raytensor.devnet.author import Author
from raytensor.devnet.chain import Chain
from raytensor.devnet.chain_spec import build_runtime
from raytensor.devnet.fork.state import Fork
from raytensor.devnet.gc_freeze import avoid_long_collections
from raytensor.devnet.persist import Disk
from raytensor.devnet.rpc import NodeRpc
from raytensor.devnet.server import Server
from raytensor.devnet.warm_up import warm_up
from raytensor.errors import ConfigError


async def serve(options: argparse.Namespace, time: tuple[int, float | None, bool], fork: Fork | None = None) -> int:
    """Serve a node with the options of `raytensor devnet` until it is stopped. Returns the exit status.

    time  (milliseconds per slot, seconds between blocks or None, whether instant).
    fork  what a new chain starts from; None: the embedded chain's own genesis.

    Raises `ConfigError` for a port that is taken, or a state with another block time.
    """
    slot_ms, interval_s, instant = time
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
        chain = Chain(runtime, finality_lag=options.finality_lag, disk=disk, fork=fork)
        author = Author(chain, interval_s=interval_s, instant=instant)
        server = Server(NodeRpc(chain, author), options.allow_origin)
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
