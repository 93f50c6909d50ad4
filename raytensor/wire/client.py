"""Asks miners of other operators over signed HTTP.

In: tasks, and a `Metagraph` with the addresses of their miners. Out: one `Response`, `Submission` or `Failure` per
task.
Bounds: `max_in_flight` questions, `max_in_flight_per_address` of them to one address; an answer has at most the bytes
that its question can need, in the format that was asked for. Each question ends within its own deadline, measured to
the arrival of the answer and not to its decoding; the adaptive deadline cancels slow questions once a quorum has
answered. Answers are untrusted: no redirects, no cookies, no compression; large ones are decoded in a thread.
Knows nothing of scores or of the chain. The key only signs; it may be in another process.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import aiohttp

from raytensor.config.checks import check
from raytensor.config.wire import Client
from raytensor.errors import WireError
from raytensor.payload import num_bytes
from raytensor.types import Failure, Metagraph, Reason, Response, Submission, Task
from raytensor.wire import codec, payloads
from raytensor.wire.auth import NonceSource, Signer
from raytensor.wire.codec import Prompt
from raytensor.wire.deadline import adaptive_deadline_s
from raytensor.wire.dialect import COMPLETE, MAX_ERROR_BYTES, Draft, media_type
from raytensor.wire.dialects import DIALECTS
from raytensor.wire.endpoints import BadEndpoint, endpoint, group_of, url
from raytensor.wire.errors import Declined, PayloadError, TooLarge
from raytensor.wire.http_form import in_form
from raytensor.wire.payloads import offload

Answer = Response | Submission | Failure
T = TypeVar("T")
MOST_GRACE_S = 5.0  # of a deadline, for the time in which this process itself did not run


class Addresses:
    """How many questions are in flight in all and to each address; shared by the clients of one process.

    A question is signed once it has its place, so that none grows old while it waits.
    """

    def __init__(self, settings: Client) -> None:
        self._most = settings.max_in_flight_per_address
        self._all = asyncio.Semaphore(settings.max_in_flight)
        self._slots: dict[str, tuple[asyncio.Semaphore, int]] = {}  # group -> (slots, questions that use or await one)

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """A place among the questions to the address of `host`."""
        group = group_of(host)
        slots, users = self._slots.get(group, (asyncio.Semaphore(self._most), 0))
        self._slots[group] = slots, users + 1
        try:
            async with slots, self._all:
                yield
        finally:
            slots, users = self._slots[group]
            if users == 1:
                del self._slots[group]
            else:
                self._slots[group] = slots, users - 1


@dataclass
class _Times:
    """When a question was sent and when its answer had arrived, monotonic seconds; None: not yet."""

    sent_s: float | None = None
    arrived_s: float | None = None


@dataclass(frozen=True)
class _Received:
    """The answer to a question as it came."""

    headers: dict[str, str]
    body: bytes


class WireClient:
    """Asks with one hotkey. An `async with` context manager, for one event loop.

    signer     the hotkey of the caller.
    addresses  shared with other clients of the process; None: of its own.
    clock      wall time in nanoseconds.
    """

    def __init__(
        self,
        signer: Signer,
        settings: Client,
        *,
        addresses: Addresses | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        check(settings)
        self._signer, self._settings = signer, settings
        self._addresses = addresses or Addresses(settings)
        self._dialect = in_form(DIALECTS[settings.protocol](), settings.http)
        self._nonces = NonceSource(clock)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WireClient:
        settings = self._settings
        most, per_host = settings.max_in_flight, settings.max_connections_per_endpoint
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=most, limit_per_host=per_host, keepalive_timeout=30.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            headers={"Accept-Encoding": "identity", "User-Agent": "raytensor"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # ---- questions

    async def ask(self, task: Task, axon: str) -> Answer:
        """One question to the miner that published the address `axon` ("ip:port")."""
        return await self._ask_timed(task, axon, _Times())

    async def _ask_timed(self, task: Task, axon: str, times: _Times) -> Answer:
        try:
            host, port = endpoint(axon, allow_local=self._settings.allow_local_addresses)
        except BadEndpoint as error:
            reason = Reason.ERROR if axon else Reason.SILENT
            return Failure(task.task_id, task.hotkey, reason, f"{error} ({error.fix})" if error.fix else str(error))
        try:
            async with self._addresses.slot(host):
                times.sent_s = time.monotonic()
                received = await _within(task.deadline_s, self._ask(task, url(host, port)))
        except TimeoutError:
            return Failure(task.task_id, task.hotkey, Reason.TIMEOUT, f"no answer within {task.deadline_s:g} s")
        times.arrived_s = time.monotonic()
        return received if isinstance(received, Failure) else await self._decode(task, received)

    async def ask_all(self, tasks: Sequence[Task], metagraph: Metagraph) -> list[Answer]:
        """All questions concurrently; the outcomes in the order of the tasks. See `ask_each`."""
        axons = dict(zip(metagraph.hotkeys, metagraph.axons, strict=True))
        found = {_task_id(outcome): outcome async for outcome in self.ask_each(tasks, axons)}
        return [found[task.task_id] for task in tasks]

    async def ask_each(self, tasks: Sequence[Task], axons: Mapping[str, str]) -> AsyncIterator[Answer]:
        """All questions concurrently; each outcome as it arrives.

        axons  hotkey -> the address that the miner published.

        The time of a question counts from when it is sent. Questions above the adaptive deadline are cancelled.
        """
        settings = self._settings
        running: dict[asyncio.Task[Answer], tuple[Task, _Times]] = {}
        answered_s: list[float] = []
        cancelled: list[asyncio.Task[Answer]] = []
        todo = list(reversed(tasks))
        limits = {"mads": settings.deadline_mads, "quorum": settings.quorum, "least_s": settings.min_deadline_s}
        try:
            while todo or running:
                while todo:
                    of_file = todo[-1].kind == "file"
                    if len(running) >= (settings.max_files_in_flight if of_file else settings.max_in_flight):
                        break
                    task = todo.pop()
                    times = _Times()
                    question = self._ask_timed(task, axons.get(task.hotkey, ""), times)
                    running[asyncio.create_task(question)] = (task, times)
                limit_s = adaptive_deadline_s(answered_s, len(running), **limits)
                wait_s = None
                if limit_s is not None:
                    sent = [times.sent_s for _, times in running.values() if times.sent_s is not None]
                    wait_s = max(0.0, min(sent) + limit_s - time.monotonic()) if sent else None
                done, _ = await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                now_s = time.monotonic()
                for question in done:
                    _, times = running.pop(question)
                    outcome = question.result()
                    if not isinstance(outcome, Failure) and times.sent_s and times.arrived_s:
                        answered_s.append(times.arrived_s - times.sent_s)
                    yield outcome
                if limit_s is not None and not done:
                    for question, (task, times) in list(running.items()):
                        if times.sent_s and not times.arrived_s and now_s - times.sent_s >= limit_s:
                            question.cancel()
                            cancelled.append(question)
                            del running[question]
                            detail = f"no answer within {limit_s:.3g} s (median + {settings.deadline_mads:g} MAD)"
                            yield Failure(task.task_id, task.hotkey, Reason.TIMEOUT, detail)
        finally:
            for question in running:
                question.cancel()
            await asyncio.gather(*running, *cancelled, return_exceptions=True)

    async def complete(self, prompt: Prompt, axon: str) -> AsyncIterator[str]:
        """The answer to a prompt, piece by piece. Raises WireError when the miner declines, fails or disconnects."""
        host, port = endpoint(axon, allow_local=self._settings.allow_local_addresses)
        draft = Draft(COMPLETE, codec.encode_prompt(prompt), codec.JSON, prompt.deadline_s)
        most = self._settings.bounds.max_answer_bytes
        end_s = time.monotonic() + prompt.deadline_s
        answer = None
        try:
            # One time-out per wait: time that our caller spends on a piece does not count.
            answer = await asyncio.wait_for(self._post(draft, prompt.hotkey, url(host, port)), prompt.deadline_s)
            if answer.status != 200:
                body = await asyncio.wait_for(_read(answer, MAX_ERROR_BYTES), end_s - time.monotonic())
                reason, detail = self._dialect.decode_error(answer.status, body)
                raise Declined(detail, failure=reason)
            size = 0
            while line := await asyncio.wait_for(answer.content.readline(), end_s - time.monotonic()):
                size += len(line)
                if size > most:
                    raise TooLarge(f"the answer has more than {most} bytes")
                piece = _piece(line)
                if piece is None:
                    return
                yield piece
            raise PayloadError("the answer ended early")
        except TimeoutError:
            raise Declined(f"the answer did not end within {prompt.deadline_s:g} s", failure=Reason.TIMEOUT) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a line longer than aiohttp's buffer
            raise Declined(f"the connection failed: {type(error).__name__}", failure=Reason.ERROR) from None
        finally:
            if answer is not None:
                answer.close()

    # ---- one question

    async def _ask(self, task: Task, base: str) -> _Received | Failure:
        try:
            large = num_bytes(task.payload) + task.tokens.nbytes
            draft = await offload(large, partial(self._dialect.draft, task, self._settings.body))
        except WireError as error:
            return Failure(task.task_id, task.hotkey, Reason.ERROR, str(error))
        last_try = max(1, self._settings.tries) - 1
        failure = ""
        for number in range(last_try + 1):
            if number:
                await asyncio.sleep(0.05 * 2**number)
            try:
                async with await self._post(draft, task.hotkey, base) as answer:
                    if answer.status == 503 and number < last_try:
                        continue
                    return await self._receive(task, draft, answer)
            except aiohttp.ClientConnectorError as error:
                failure = f"no connection: {error.os_error.strerror or error.os_error}"
            except (aiohttp.ClientError, OSError) as error:
                failure = f"the connection failed: {type(error).__name__}"
        return Failure(task.task_id, task.hotkey, Reason.ERROR, failure)

    async def _post(self, draft: Draft, receiver: str, base: str) -> aiohttp.ClientResponse:
        assert self._session is not None, "use the client as `async with`"

        def sign() -> dict[str, str]:
            return self._dialect.sign(self._signer, draft, receiver, self._nonces())

        headers = await asyncio.to_thread(sign) if self._signer.blocking else sign()
        headers["Content-Type"] = draft.content_type
        request = {"data": draft.body, "headers": headers, "allow_redirects": False}
        return await self._session.request(draft.method, base + draft.path, **request)

    async def _receive(self, task: Task, draft: Draft, answer: aiohttp.ClientResponse) -> _Received | Failure:
        try:
            if answer.status != 200:
                reason, detail = self._dialect.decode_error(answer.status, await _read(answer, MAX_ERROR_BYTES))
                return Failure(task.task_id, task.hotkey, reason, detail)
            headers, bounds = {name.lower(): value for name, value in answer.headers.items()}, self._settings.bounds
            kind = media_type(headers)
            most = bounds.max_file_bytes if task.kind == "file" else bounds.max_answer_bytes
            if kind != codec.FILE or codec.FILE not in codec.answer_types(task, draft.content_type):
                most = min(bounds.max_answer_bytes, self._dialect.answer_bound(draft, task, kind))
            return _Received(headers, await _read(answer, most))
        except WireError as error:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, str(error))

    async def _decode(self, task: Task, received: _Received) -> Answer:
        """The answer from its bytes, as `payloads.checked` lets it pass."""
        decode = partial(self._dialect.decode_response, received.headers, received.body, task)
        try:
            return payloads.checked(task, await offload(len(received.body), decode))
        except WireError as error:
            return Failure(task.task_id, task.hotkey, Reason.MALFORMED, str(error))


async def _within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` within `limit_s`, or TimeoutError.

    A loop that did not run while the time passed has not seen what had arrived by then; it gets as long as it was late.
    """
    loop = asyncio.get_running_loop()
    end_s, task = loop.time() + limit_s, asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=limit_s)
        late_s = min(MOST_GRACE_S, loop.time() - end_s)
        if not done and late_s > 0:
            done, _ = await asyncio.wait({task}, timeout=late_s)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _task_id(outcome: Answer) -> str:
    return outcome.item_id if isinstance(outcome, Failure) else outcome.task_id


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body; TooLarge as soon as it is longer than `most`."""
    if (answer.content_length or 0) > most:
        raise TooLarge(f"the answer says {answer.content_length} bytes; at most {most} are read")
    parts, size = [], 0
    while chunk := await answer.content.readany():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the answer has more than {most} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _piece(line: bytes) -> str | None:
    """The text of one line of a stream, None at its end."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and isinstance(message.get("text"), str):
        return message["text"]
    if isinstance(message, dict) and message.get("done") is True:
        return None
    reason = str(message.get("reason", ""))[:300] if isinstance(message, dict) else ""
    raise Declined(reason or "the answer has a line that is not a piece of text", failure=Reason.ERROR)
