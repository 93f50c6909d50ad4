"""A websocket proxy between clients and a real node that misbehaves on demand, from a thread of its own.

`mode` acts on all connections at once:

    open    forwards
    stall   keeps the connections and forwards nothing, in either direction (half-dead sockets)
    mute    forwards requests, swallows answers: a submission arrives and its answer does not
    shut    closes every connection and refuses new ones
    limit   answers new connections with HTTP 429

`rule(method)` may name a `Fault` for each request that passes. `requests` counts what was asked for, by method;
`faults` what was done. Knows nothing of what the messages mean, beside their method and id.
"""

from __future__ import annotations

import asyncio
import enum
import json
import re
import threading
from collections import Counter
from collections.abc import Callable

import aiohttp
from aiohttp import WSMsgType, web


class Fault(str, enum.Enum):
    """What can happen to one request and its answer."""

    DROP_REQUEST = "drop request"  # it never arrives
    DROP_ANSWER = "drop answer"  # it arrives, its answer does not
    DELAY = "delay"  # the answer comes `delay_s` late
    HALF_CLOSE = "half-close"  # the node's side says no more (FIN) and hears no more
    RESET_BEFORE = "reset before"  # the connection ends before the request is forwarded
    RESET_AFTER = "reset after"  # ... and after it
    BLACK_HOLE = "black hole"  # the connection stays and carries nothing from here on, this request included
    DRIP = "dripping answer"  # its answer comes byte by byte, and takes longer than any deadline
    DUPLICATE = "duplicate request"  # it arrives twice, and so does its answer
    UPSTREAM_RETRY = "upstream retry"  # it arrives twice, `delay_s` apart; only the second answer comes back
    TWICE_ANSWERED = "duplicate answer"
    REORDER = "reorder"  # the answer comes after that to the next request, or after `delay_s`
    GARBAGE = "garbage"  # the answer is replaced by bytes that mean nothing
    CUT = "cut answer"  # ... by its first half
    FOREIGN = "foreign answer"  # an answer with another id comes before it
    LIMITED = "rate limit"  # it does not arrive; the answer is an error
    BANNED = "1012"  # it does not arrive; the answer is 1012
    BANNED_AFTER = "1012, though taken"  # it arrives; the answer is 1012
    BAD_FORMAT = "1001"  # it does not arrive; the answer is 1001
    TOO_LOW = "1014"
    TOO_LOW_AFTER = "1014, though taken"
    IMPORTED_AFTER = "1013, though taken"
    PAYMENT = "1010 payment"  # it does not arrive; the answer is 1010
    # It arrives at one backend, and the answer is that of another:
    BAD_SIGNATURE_AFTER = "1010 bad signature, though taken"
    PAYMENT_AFTER = "1010 payment, though taken"
    CUSTOM_AFTER = "1010 custom, though taken"
    STALE_AFTER = "1010 stale, though taken"
    FULL_AFTER = "1016, though taken"
    NO_BLOCK_AFTER = "unknown block, though taken"
    # It arrives, and the answer is JSON-RPC with an error that means nothing:
    NONSENSE_AFTER = "an error without a number"
    WORDS_AFTER = "an error that is a word"
    LIST_AFTER = "an error that is a list"


_BEFORE = {Fault.LIMITED, Fault.BANNED, Fault.BAD_FORMAT, Fault.TOO_LOW, Fault.PAYMENT}  # not forwarded


def _invalid(words: str) -> dict:
    return {"code": 1010, "message": "Invalid Transaction", "data": words}


ERRORS = {
    Fault.LIMITED: {"code": -32005, "message": "Rate limit exceeded"},
    Fault.BANNED: {"code": 1012, "message": "Transaction is temporarily banned"},
    Fault.BANNED_AFTER: {"code": 1012, "message": "Transaction is temporarily banned"},
    Fault.BAD_FORMAT: {"code": 1001, "message": "Extrinsic has invalid format: Could not decode"},
    Fault.TOO_LOW: {"code": 1014, "message": "Priority is too low: (1 vs 1)"},
    Fault.TOO_LOW_AFTER: {"code": 1014, "message": "Priority is too low: (1 vs 1)"},
    Fault.IMPORTED_AFTER: {"code": 1013, "message": "Transaction Already Imported"},
    Fault.PAYMENT: _invalid("Inability to pay some fees (e.g. account balance too low)"),
    Fault.PAYMENT_AFTER: _invalid("Inability to pay some fees (e.g. account balance too low)"),
    Fault.BAD_SIGNATURE_AFTER: _invalid("Transaction has a bad signature"),
    Fault.CUSTOM_AFTER: _invalid("Custom error: 2"),
    Fault.STALE_AFTER: _invalid("Transaction is outdated"),
    Fault.FULL_AFTER: {"code": 1016, "message": "Immediately Dropped"},
    Fault.NO_BLOCK_AFTER: {"code": 4003, "message": "Client error: UnknownBlock: Header was not found"},
    Fault.NONSENSE_AFTER: {"code": "many", "message": ["?"], "data": {"invalid": 7}},
    Fault.WORDS_AFTER: "error",
    Fault.LIST_AFTER: [1010],
}
DRIP_S = 0.1  # between two bytes: the shortest answer, of 40 bytes, takes 4 s
GARBAGE = ("\x00\xff{]", "[1,2", '{"jsonrpc":"2.0"}', "null", "")


class _Pair:
    """One client's connection, and ours to the node on its behalf."""

    def __init__(self, proxy: FaultProxy, inner: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.proxy, self.inner, self.transport = proxy, inner, transport
        self.outer: aiohttp.ClientWebSocketResponse | None = None
        self.due: dict[int, Fault] = {}  # request id -> what its answer is to suffer
        self.asked: dict[int, str] = {}  # request id -> its method
        self.held: list[str] = []  # answers that wait for the next one
        self.dark = False
        self.garbled = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(self.proxy.target, max_msg_size=0, compress=0, autoping=True) as self.outer:
            ways = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                self.cut()

    def cut(self) -> None:
        self.transport.abort()

    async def _pass(self) -> None:
        while self.dark or self.proxy.mode == "stall":
            await asyncio.sleep(0.01)

    async def _up(self) -> None:
        async for message in self.inner:
            await self._pass()
            if message.type is WSMsgType.PING:
                await self.inner.pong(message.data)
                continue
            if message.type is WSMsgType.PONG:
                continue
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            text = message.data if isinstance(message.data, str) else message.data.decode()
            method, number = method_of(text), id_of(text)
            self.asked[number] = method
            self.proxy.requests[method] += 1
            fault = self.proxy.rule(method)
            if fault is not None:
                self.proxy.faults[fault] += 1
                if not await self._suffer(fault, text, number):
                    continue
            await self.outer.send_str(text)
            if fault in (Fault.RESET_AFTER, Fault.HALF_CLOSE):
                await asyncio.sleep(0.05)  # it does arrive
            if fault is Fault.RESET_AFTER:
                return
            if fault is Fault.HALF_CLOSE:
                self.transport.write_eof()
                self.dark = True

    async def _suffer(self, fault: Fault, text: str, number: int) -> bool:
        """Whether the request is to be forwarded."""
        if fault is Fault.DROP_REQUEST:
            return False
        if fault is Fault.BLACK_HOLE:
            self.dark = True
            await self._pass()
        if fault is Fault.RESET_BEFORE:
            self.cut()
            await self._pass()
        if fault in _BEFORE:
            await self._say({"jsonrpc": "2.0", "error": ERRORS[fault], "id": number})
            return False
        if fault is Fault.DUPLICATE:
            await self.outer.send_str(text)
        elif fault is Fault.UPSTREAM_RETRY:
            self.proxy.later(self._again(text, number))
        self.due[number] = fault
        return True

    async def _again(self, text: str, number: int) -> None:
        await asyncio.sleep(self.proxy.delay_s)
        if not self.outer.closed:
            await self.outer.send_str(text)

    async def _down(self) -> None:
        async for message in self.outer:
            await self._pass()
            if message.type is not WSMsgType.TEXT:
                return
            if self.proxy.mode != "mute":
                await self._answer(message.data)

    async def _answer(self, text: str) -> None:
        number = id_of(text)
        fault = self.due.pop(number, None)
        text = self.proxy.alter(self.asked.pop(number, ""), text)
        if fault in (Fault.DROP_ANSWER, Fault.HALF_CLOSE, Fault.RESET_AFTER, Fault.UPSTREAM_RETRY):
            return  # (of an upstream retry the second answer comes back)
        if fault in ERRORS:
            text = json.dumps({"jsonrpc": "2.0", "error": ERRORS[fault], "id": number})
        elif fault is Fault.DRIP:
            await self._drip(text.encode())
            return
        elif fault is Fault.DELAY:
            self.proxy.later(self._late(text))
            return
        elif fault is Fault.REORDER:
            self.held.append(text)
            self.proxy.later(self._late(None))
            return
        elif fault is Fault.GARBAGE:
            self.garbled += 1
            text = GARBAGE[self.garbled % len(GARBAGE)]
        elif fault is Fault.CUT:
            text = text[: len(text) // 2]
        elif fault is Fault.FOREIGN:
            await self.inner.send_str(re.sub(r'"id":\s*\d+', '"id":999999999', text))
        await self.inner.send_str(text)
        if fault is Fault.TWICE_ANSWERED:
            await self.inner.send_str(text)
        while self.held:
            await self.inner.send_str(self.held.pop(0))

    async def _drip(self, payload: bytes) -> None:
        """Writes the frame byte by byte, and nothing else on this connection, until the client closes it."""
        self.dark = True
        size = len(payload)
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        if size >= 2**16:
            length = b"\x7f" + size.to_bytes(8, "big")
        for byte in b"\x81" + length + payload:
            if self.transport.is_closing():
                return
            self.transport.write(bytes([byte]))
            await asyncio.sleep(DRIP_S)
        self.dark = False

    async def _late(self, text: str | None) -> None:
        await asyncio.sleep(self.proxy.delay_s)
        texts = [text] if text is not None else []
        while self.held and text is None:
            texts.append(self.held.pop(0))
        for one in texts:
            if not self.inner.closed and not self.dark:
                await self.inner.send_str(one)

    async def _say(self, message: dict) -> None:
        await self.inner.send_str(json.dumps(message, separators=(",", ":")))


class FaultProxy:
    """Listens on a free loopback port. `endpoint` is its URL; `target`, `mode` and `rule` may be set at any time."""

    def __init__(self, target: str, rule: Callable[[str], Fault | None] = lambda method: None) -> None:
        self.target, self.rule, self.delay_s = target, rule, 0.6
        self.alter: Callable[[str, str], str] = lambda method, answer: answer  # what it lies
        self._mode = "open"
        self.connections = 0
        self.requests: Counter[str] = Counter()
        self.faults: Counter[Fault] = Counter()
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.endpoint = self._do(self._start())

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        assert mode in ("open", "stall", "mute", "shut", "limit"), mode
        self._mode = mode
        if mode == "shut":
            self.cut()

    def cut(self) -> None:
        """Ends every connection at once."""

        async def all_of_them() -> None:
            for pair in list(self._pairs):
                pair.cut()

        self._do(all_of_them())

    def later(self, what) -> None:
        task = self._loop.create_task(self._quietly(what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        if self._thread.is_alive():
            self._do(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=60)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _do(self, what):
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    @staticmethod
    async def _quietly(what) -> None:
        try:
            await what
        except (ConnectionError, RuntimeError, aiohttp.ClientError):
            pass  # whom it was for is gone

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"ws://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        self._mode = "shut"
        for pair in list(self._pairs):
            pair.cut()
        for task in list(self._tasks):
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._mode == "limit":
            return web.Response(status=429, text="Too many connections. Please try again later.")
        if self._mode == "shut":
            request.transport.abort()
            return web.Response()
        while self._mode == "stall":
            await asyncio.sleep(0.01)
        inner = web.WebSocketResponse(max_msg_size=0, compress=False, autoping=False)
        await inner.prepare(request)
        if request.transport is None:
            return inner
        pair = _Pair(self, inner, request.transport)
        self.connections += 1
        self._pairs.add(pair)
        try:
            await self._quietly(pair.run(self._session))
        finally:
            self._pairs.discard(pair)
            pair.cut()
        return inner


def method_of(text: str) -> str:
    found = re.search(r'"method"\s*:\s*"([^"]*)"', text[:400]) or re.search(r'"method"\s*:\s*"([^"]*)"', text[-400:])
    return found.group(1) if found else ""


def id_of(text: str) -> int:
    for part in (text[-60:], text[:60]):
        if found := re.search(r'"id"\s*:\s*(\d+)', part):
            return int(found.group(1))
    return -1
