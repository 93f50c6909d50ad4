"""The checks of every request before it reaches the miner, independent of the server that carries it.

In: method, target, headers, the address of the sender and a function that reads the body. Out: a `Reply`. Cheap checks
come first, so that unknown callers cost little:

    address limit -> size -> header shape -> receiver -> freshness -> admission -> body -> signature -> nonce
    -> caller limit -> decode -> handler

Admission (registered, permit, stake, lists) comes before the body, so that strangers can't fill memory with bodies that
nobody proved, and before the nonce store. It is decided by the claim; the signature proves it later. The limit of the
caller comes after the nonce store, so that replayed requests do not count against the limit.
Bounds: `max_concurrent` questions in the handler, `max_queued` before it; more are refused (Overloaded).
Waits for: the body and the handler, each with a time-out. Needs the address of the served hotkey, never its key.
"""

import asyncio
import dataclasses
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raytensor.config.checks import check
from raytensor.config.wire import Server
from raytensor.errors import ConfigError, WireError
from raytensor.payload import Schemas
from raytensor.types import Failure, Metagraph, Response, Submission, Task
from raytensor.wire import codec, errors
from raytensor.wire.codec import Prompt
from raytensor.wire.connections import UnprovedBytes
from raytensor.wire.dialect import ASK, Dialect
from raytensor.wire.dialects import DIALECTS
from raytensor.wire.nonce_store import LocalNonces, NonceCheck, NonceStore
from raytensor.wire.payloads import NO_SCHEMAS, checked, num_bytes_of, offload
from raytensor.wire.policy import AccessControl

log = logging.getLogger(__name__)

Ask = Callable[[Task], Awaitable[Response | Submission | Failure]]
Complete = Callable[[Prompt], AsyncIterator[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a server received it.

    target     path and query as sent.
    headers    names in lower case.
    read_body  reads the whole body; raises TooLarge beyond the number of bytes it is given, and calls its second
               argument with the size of each piece that arrives.
    proved     called when the caller is proved and admitted, before it is answered.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    address: str
    read_body: Callable[[int, Callable[[int], None]], Awaitable[bytes]]
    proved: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. The pieces of a stream are sent as they arrive."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the hotkeys of one server share: who may ask, the budget of unproved bodies, the kinds with payloads."""

    policy: AccessControl
    unproved: UnprovedBytes
    schemas: Schemas

    @classmethod
    def of(cls, settings: Server, schemas: Schemas = NO_SCHEMAS) -> "Shared":
        """Raises ConfigError when the settings leave no room for the largest question of a schema."""
        most = settings.bounds.max_body_bytes
        for kind, schema in schemas.items():
            if (largest := schema.question.most_bytes(as_json=False)) > most:
                what = f"bounds.max_body_bytes={most}: a question of kind {kind!r} may have {largest} bytes"
                raise ConfigError(f"{what}\n  fix: miners.wire.bounds.max_body_bytes={largest}")
        return cls(AccessControl(settings.policy), UnprovedBytes(settings.max_unproved_bytes), schemas)


class Gate:
    """All checks of one served hotkey in one process.

    hotkey    ss58 of the miner; its private key is not needed here and should not be readable.
    ask       answers a task; returns a `Failure` to decline.
    complete  answers a prompt piece by piece; None refuses prompts.
    shared    what the hotkeys of one server share; None: its own, and no kinds of questions with payloads.
    nonces    the store that all replicas of the hotkey share (`SharedNonces`); None: a store of this process.
    clock     wall time in nanoseconds.

    counts    outcomes of the questions so far: "ok" or the name of the error -> number.

    A request that no protocol claims is handled by the first protocol of the settings.
    """

    def __init__(
        self,
        hotkey: str,
        ask: Ask,
        settings: Server,
        *,
        shared: Shared | None = None,
        nonces: NonceCheck | None = None,
        complete: Complete | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        check(settings)
        fresh = settings.freshness
        if nonces is None:
            nonces = LocalNonces(NonceStore(fresh, clock=clock))
        if nonces.retention_s < fresh.max_age_s + fresh.max_skew_s:
            kept, needed = f"{nonces.retention_s:g} s", f"{fresh.max_age_s + fresh.max_skew_s:g} s"
            raise ValueError(
                f"the nonce store keeps nonces for {kept} but they stay fresh for {needed}: raise its retention_s"
            )
        self.hotkey = hotkey
        shared = shared or Shared.of(settings)
        self.policy, self.unproved, self._schemas = shared.policy, shared.unproved, shared.schemas
        self.nonces = nonces
        self.counts: Counter[str] = Counter()
        self._ask, self._complete, self._settings = ask, complete, settings
        self._dialects = [DIALECTS[name]() for name in settings.protocols]
        self._clock = clock
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self.in_flight = 0  # in the handler or waiting for it
        self.server_id = secrets.token_hex(8)  # tells this server from another one at the same address

    def update(self, metagraph: Metagraph) -> None:
        """Use this snapshot of the subnet from now on; before the first one only the allow list is served."""
        self.policy.update(metagraph, self._clock() / 1e9)

    def totals(self) -> Counter[str]:
        """Outcomes of all requests and connections so far."""
        return Counter(self.counts)

    async def wait_until_ready(self) -> None:
        """Returns when the nonce store accepts requests that are signed from now on."""
        await asyncio.sleep(await self.nonces.ready_in_s() + 0.002)  # some protocols sign whole milliseconds

    async def handle(self, request: Request) -> Reply:
        """The reply to one request; never raises because of its content."""
        path = request.target.partition("?")[0]
        dialect = next((d for d in self._dialects if d.speaks(request.headers, path)), self._dialects[0])
        try:
            reply = await self._handle(request, path, dialect)
            self.counts["ok"] += path != "/health"
        except WireError as error:
            self.counts[type(error).__name__] += 1
            headers, body = dialect.encode_error(error)
            if isinstance(error, errors.RateLimited):
                headers["Retry-After"] = str(max(1, round(error.retry_after_s + 0.5)))
            reply = Reply(error.status, headers, body)
        return reply

    async def _handle(self, request: Request, path: str, dialect: Dialect) -> Reply:
        settings, headers = self._settings, request.headers
        now_ns, began_s = self._clock(), asyncio.get_running_loop().time()
        self.policy.address(request.address, now_ns / 1e9)
        if path == "/health" and request.method == "GET":
            return Reply(200, {"Content-Type": codec.JSON}, json.dumps({"ok": True, "server": self.server_id}).encode())
        route = dialect.route(path)
        if route is None or request.method != "POST" or (route != ASK and self._complete is None):
            raise errors.NotFound("this path does not exist", fix=f"POST to {ASK}")
        most = settings.bounds.max_body_bytes
        length = headers.get("content-length", "0")
        if len(length) > 20 or not (length.isascii() and length.isdigit()) or int(length) > most:
            raise errors.TooLarge(f"the body says {length[:20]} bytes; at most {most} are read")
        if headers.get("content-encoding", "identity") != "identity":
            raise errors.PayloadError("compressed bodies are not read", fix="send the body uncompressed")

        claim = dialect.read(headers, self.hotkey, now_ns, settings.freshness)
        if claim.scheme not in settings.schemes:
            raise errors.BadSignature(f"this server accepts signatures of {' and '.join(settings.schemes)} only")
        self.policy.admit(claim.hotkey, now_ns / 1e9)
        with self.unproved.open(request.address) as held:
            try:
                async with asyncio.timeout(settings.body_timeout_s):
                    body = await request.read_body(most, held.took)
            except TimeoutError:
                raise errors.TooSlow(f"the body did not arrive within {settings.body_timeout_s:g} s") from None
            caller = dialect.prove(claim, method=request.method, target=request.target, body=body)
        now_s = self._clock() / 1e9
        key = f"{caller.hotkey}:{claim.unique}" if claim.unique else caller.hotkey
        await self.nonces.check(key, caller.nonce_ns)
        self.policy.spend(caller.hotkey, now_s, self.hotkey)
        request.proved()

        if route == ASK:
            decode = partial(dialect.decode_task, claim, headers, body, settings.bounds, self._schemas)
            task = await offload(len(body), decode)
            self._check_names(task.validator, task.hotkey, task.netuid, caller.hotkey)
            response = await self._answer(task, began_s)
            if isinstance(response, Submission) and response.path:
                response = await self._load(response)
            try:
                encode = partial(dialect.encode_response, claim, headers, task, response)
                reply_headers, data = await offload(num_bytes_of(response), encode)
            except (errors.PayloadError, ValueError) as error:  # ValueError: NaN in JSON
                log.error("the answer to task %s can't be encoded: %s", task.task_id, error)
                raise errors.Broken("the answer of the miner can't be encoded") from error
            return Reply(200, reply_headers, data)
        prompt = dialect.decode_prompt(headers, body, settings.bounds)
        self._check_names(prompt.validator, prompt.hotkey, prompt.netuid, caller.hotkey)
        return Reply(200, {"Content-Type": codec.NDJSON}, await self._stream(prompt))

    def _check_names(self, validator: str, hotkey: str, netuid: int, caller: str) -> None:
        if validator != caller:
            raise errors.PayloadError("the message names another validator than the one that signed the request")
        if hotkey != self.hotkey:
            raise errors.PayloadError("the message asks another miner than the one at this address")
        served = self.policy.netuids
        if served and netuid not in served:
            other = f"this miner serves subnet {', '.join(map(str, served))}"
            raise errors.PayloadError(f"the message is about subnet {netuid}; {other}")
        self.policy.admit(caller, self._clock() / 1e9, netuid)

    # ---- handlers

    async def _load(self, submission: Submission) -> Submission:
        """A submission with the bytes of its file, read in a thread."""
        path, most = Path(submission.path), self._settings.bounds.max_file_bytes
        try:
            if path.stat().st_size > most:
                raise errors.Broken(f"the miner's file has more than {most} bytes")
            payload = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            log.error("the file of task %s can't be read: %s", submission.task_id, error)
            raise errors.Broken("the miner's file can't be read") from error
        return dataclasses.replace(submission, path="", payload=payload)

    async def _answer(self, task: Task, began_s: float) -> Response | Submission:
        """The handler's answer, checked. Its time counts from `began_s`, when the headers had arrived."""
        limit_s = min(task.deadline_s, self._settings.answer_timeout_s)
        try:
            async with asyncio.timeout_at(began_s + limit_s):
                await self._acquire_slot()
                try:
                    outcome = await self._ask(task)
                finally:
                    self._release_slot()
        except TimeoutError:
            raise errors.TooSlow(f"the miner did not answer within {limit_s:g} s") from None
        except WireError:
            raise
        except Exception as error:  # user code: its errors must not stop the server
            log.exception("the answer to task %s failed", task.task_id)
            raise errors.Broken("the miner failed while it answered") from error
        outcome = checked(task, outcome)
        if isinstance(outcome, Failure):
            raise errors.Declined(outcome.detail or "the miner declined", failure=outcome.reason)
        return outcome

    async def _stream(self, prompt: Prompt) -> AsyncGenerator[bytes, None]:
        """Waits for a free place, then returns the lines; their end releases the place."""
        assert self._complete is not None
        limit_s = min(prompt.deadline_s, self._settings.answer_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                await self._acquire_slot()
        except TimeoutError:
            raise errors.TooSlow(f"the miner had no free place within {limit_s:g} s") from None
        lines = self._lines(self._complete(prompt), prompt, limit_s)
        await anext(lines)  # started: closing the generator now releases the place
        return lines

    async def _lines(self, pieces: AsyncIterator[str], prompt: Prompt, limit_s: float) -> AsyncGenerator[bytes, None]:
        """An empty line first; {"text": ...} per piece; {"done": true} or {"error": ...} last."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + limit_s
        try:
            yield b""
            while True:
                pause_s = min(self._settings.stream_pause_s, end_s - loop.time())
                try:
                    piece = await asyncio.wait_for(anext(pieces), max(pause_s, 0.0))
                except StopAsyncIteration:
                    yield b'{"done": true}\n'
                    return
                yield json.dumps({"text": piece}).encode() + b"\n"
        except TimeoutError:
            yield errors.to_json(errors.TooSlow("the miner did not finish in time")) + b"\n"
        except Exception:  # user code: its errors must not stop the server
            log.exception("the completion of prompt %s failed", prompt.prompt_id)
            self.counts["Broken"] += 1
            yield errors.to_json(errors.Broken("the miner failed while it answered")) + b"\n"
        finally:
            self._release_slot()
            if isinstance(pieces, AsyncGenerator):  # the caller is gone: what makes the pieces stops at once
                await pieces.aclose()

    async def _acquire_slot(self) -> None:
        if self.in_flight >= self._settings.max_concurrent + self._settings.max_queued:
            raise errors.Overloaded(f"{self.in_flight} questions are being answered or waiting")
        self.in_flight += 1
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            self.in_flight -= 1
            raise

    def _release_slot(self) -> None:
        self.in_flight -= 1
        self._slots.release()
