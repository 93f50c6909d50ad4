"""The gateway as a running server: the follower of the chain, the client of the miners, HTTP, in one process.

In: a `GatewayConfig`, the signer of the caller's hotkey, a file for the usage. Out: a port that listens.
Waits for: the first metagraph of each subnet, and the port. The key is opened, and signs, in the signer's own process.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import uvicorn

from raytensor.chain.reads.follower import Follower, Reads
from raytensor.commands.query import read_tokenizer
from raytensor.commands.request_signer import ProcessSigner
from raytensor.config.gateway import GatewayConfig
from raytensor.errors import ChainUnavailable, ConfigError
from raytensor.jobs.gateway.app import Gateway, make_app
from raytensor.jobs.gateway.keys import KeyFile, Usage
from raytensor.supervised import run_once
from raytensor.types import Metagraph
from raytensor.wire.client import WireClient

log = logging.getLogger(__name__)

END_S = 5.0  # for requests in flight when the server ends
START_S = 60.0


class GatewayServer:
    """A context manager: listens when `__enter__` returns. clock: of the quotas.

    Raises `ConfigError` for a port that is taken or a key file that can't be used, `ChainUnavailable`.
    """

    def __init__(
        self, cfg: GatewayConfig, signer: ProcessSigner, usage_file: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._cfg, self._signer = cfg, signer
        KeyFile(cfg.keys).names  # noqa: B018 (refused before anything starts)
        self._coder = read_tokenizer(cfg.tokenizer)
        self.usage = Usage(usage_file, clock)
        reads = Reads(cfg.chain.refresh_blocks)
        self.follower = Follower(cfg.chain.endpoints, cfg.netuids, reads, timeout_s=cfg.chain.timeout_s)
        self._server: uvicorn.Server | None = None
        self._socket: socket.socket | None = None
        self._ended = threading.Event()
        self._thread = run_once("gateway-http", self._serve)  # the job ends with it: it sees `ended`

    @property
    def url(self) -> str:
        """The base of the API."""
        assert self._socket is not None, "entered"
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @property
    def ended(self) -> bool:
        """Whether the server has ended by itself, which it never should."""
        return self._ended.is_set()

    def __enter__(self) -> "GatewayServer":
        try:
            self._socket = _listen(self._cfg.host, self._cfg.port)
            self.follower.start()
            self._wait(lambda: all(self._metagraph(one) is not None for one in self._cfg.netuids), "the metagraphs")
            self._thread.start()
            self._wait(lambda: self._ended.is_set() or (self._server is not None and self._server.started), "the port")
        except BaseException:  # also an interruption: without a return nobody would call `__exit__`
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * END_S)
        self.follower.close()
        if self._socket is not None:
            self._socket.close()
        try:
            self.usage.save()
        except OSError as error:  # the end is in order, only the newest usage is lost
            log.error("the usage can't be written: %s", error)

    def _metagraph(self, netuid: int) -> Metagraph | None:
        return self.follower.seen(netuid).metagraph

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + START_S
        while not done():
            if time.monotonic() > end_s:
                _, why = self.follower.silence
                raise ChainUnavailable(f"waited {START_S:g} s for {what}: {why or 'no answer'}")
            time.sleep(0.05)

    def _serve(self) -> None:
        try:
            asyncio.run(self._listen_and_ask())
        finally:
            self._ended.set()

    async def _listen_and_ask(self) -> None:
        cfg, signer = self._cfg, self._signer
        async with WireClient(signer, cfg.asking) as client:
            gateway = Gateway(cfg, signer.ss58, client, self._coder, self.usage, self._metagraph)
            # h11 and asyncio, whatever else is installed: one behaviour everywhere.
            settings = uvicorn.Config(
                make_app(gateway),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                limit_concurrency=4 * cfg.limits.max_concurrent,
                timeout_graceful_shutdown=int(END_S),
            )
            self._server = uvicorn.Server(settings)
            await self._server.serve([self._socket] if self._socket is not None else None)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `ConfigError` for an address that can't be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        return made
    except OSError as error:
        raise ConfigError(f"host={host!r}, port={port}: can't listen there: {error.strerror or error}") from None
