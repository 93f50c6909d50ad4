"""The API as an ASGI application: keys and quotas first, then the body, then the miners.

In: HTTP requests; the newest metagraph of each subnet. Out: OpenAI's answers, or errors in OpenAI's shape; metrics in
Prometheus' text format. Waits for: a body and an answer, each with a limit. Bounds: `limits`.
Knows nothing of the chain or of how it is served.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException

from raytensor.commands.query_miners import MinerAnswer, QueryFailed
from raytensor.config.gateway import GatewayConfig
from raytensor.data.tokenizer import Tokenizer
from raytensor.errors import ConfigError, WireError
from raytensor.jobs.gateway import messages
from raytensor.jobs.gateway.keys import Key, KeyFile, OverQuota, Usage
from raytensor.jobs.gateway.messages import ApiError, ChatRequest, CompletionRequest
from raytensor.jobs.gateway.race import NoAnswer, Race
from raytensor.jobs.gateway.routing import Router
from raytensor.types import Metagraph
from raytensor.wire.client import WireClient
from raytensor.wire.codec import Prompt

log = logging.getLogger(__name__)
MODEL = "subnet-"


class Metrics:
    """The series of one gateway, and their text. No label holds a key or a hotkey."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "raytensor_gateway_"
        self.requests = Counter(f"{name}requests", "Requests, by status.", ["model", "status"], registry=registry)
        self.tokens = Counter(
            f"{name}tokens", "Tokens, of prompts and of answers.", ["model", "kind"], registry=registry
        )
        self.hedges = Counter(
            f"{name}hedges", "Miners asked because another one was slow.", ["model"], registry=registry
        )
        self.failures = Counter(
            f"{name}broken_answers", "Answers that broke off and were begun anew.", registry=registry
        )
        self.in_flight = Gauge(f"{name}in_flight", "Requests that are being answered.", registry=registry)
        text = "Seconds from a request to the first piece of text."
        self.first_piece = Histogram(f"{name}first_piece_seconds", text, ["model"], registry=registry)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)


@dataclass
class _Job:
    """A request that holds a place and reserved tokens until `Gateway.end`."""

    key: Key
    request: messages.Request
    prompt_tokens: int
    max_tokens: int
    used_tokens: int = 0

    @property
    def usage(self) -> dict[str, int]:
        told = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.used_tokens}
        return told | {"total_tokens": sum(told.values())}

    @property
    def finish_reason(self) -> str:
        return "length" if self.used_tokens >= self.max_tokens else "stop"


class Gateway:
    """What the routes do. metagraph: netuid -> the newest one, None before the first."""

    def __init__(
        self,
        cfg: GatewayConfig,
        caller: str,
        client: WireClient,
        coder: Tokenizer,
        usage: Usage,
        metagraph: Callable[[int], Metagraph | None],
    ) -> None:
        self._cfg, self._caller, self._client, self._coder = cfg, caller, client, coder
        self._keys, self._usage, self._metagraph = KeyFile(cfg.keys), usage, metagraph
        self._router = Router(cfg.routing, caller, allow_local=cfg.asking.allow_local_addresses)
        self._in_flight = 0
        self.metrics = Metrics()
        self.models = {f"{MODEL}{netuid}": netuid for netuid in cfg.netuids}

    def key(self, request: Request) -> Key:
        """Whose request it is. Raises `ApiError` (401)."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        found = self._keys.find(key.strip()) if scheme.lower() == "bearer" and key else None
        if found is None:
            raise ApiError(401, "invalid_api_key", "no valid API key: send the header Authorization: Bearer KEY")
        return found

    async def answer(
        self, request: Request, schema: type[CompletionRequest] | type[ChatRequest]
    ) -> tuple[str, Response]:
        """(model, answer). Raises `ApiError`."""
        started_s, key = time.monotonic(), self.key(request)
        asked = messages.read(schema, await self._body(request), self._cfg.limits)
        if (netuid := self.models.get(asked.model)) is None:
            message = f"model: there is no {asked.model!r}; it is one of {', '.join(self.models)}"
            raise ApiError(404, "model_not_found", message, param="model")
        async with AsyncExitStack() as stack:
            job = self._begin(key, asked)
            stack.callback(self._end, job)
            race = self._race(netuid, asked, job, started_s)
            stack.push_async_callback(race.close)
            try:
                return asked.model, await self._say(race, job, started_s, stack)
            except NoAnswer as error:
                raise ApiError(503, "no_miner_answered", f"no miner answered: {error}", retry_after_s=1) from None
            finally:
                self.metrics.hedges.labels(asked.model).inc(race.num_hedges)

    async def _say(self, race: Race, job: _Job, started_s: float, stack: AsyncExitStack) -> Response:
        await race.start()
        self.metrics.first_piece.labels(job.request.model).observe(time.monotonic() - started_s)
        shape = messages.Shape(job.request, uuid.uuid4().hex, int(time.time()))
        headers = {"x-raytensor-miner": race.miner.hotkey}
        if job.request.stream:
            return _Stream(self._stream(race, job, shape), stack.pop_all(), headers)
        while True:
            job.used_tokens = 0
            try:
                text = "".join([piece async for piece in self._bounded(race, job)])
                break
            except WireError:  # nothing was sent yet: begin anew with the miners that were not asked
                self.metrics.failures.inc()
                await race.start()
        headers["x-raytensor-miner"] = race.miner.hotkey
        return JSONResponse(shape.whole(text, job.finish_reason, job.usage), headers=headers)

    async def _stream(self, race: Race, job: _Job, shape: messages.Shape) -> AsyncIterator[bytes]:
        for chunk in shape.first():
            yield chunk
        try:
            async for piece in self._bounded(race, job):
                yield shape.piece(piece)
        except WireError as error:  # what was sent can't be taken back
            yield messages.event(ApiError(503, "answer_broke_off", f"the miner's answer broke off: {error}").body())
            return
        options = job.request.stream_options
        for chunk in shape.last(job.finish_reason, job.usage if options and options.include_usage else None):
            yield chunk

    async def _bounded(self, race: Race, job: _Job) -> AsyncIterator[str]:
        """The text, cut at max_tokens whatever the miner sends; its tokens are counted as they come."""
        async for piece in race.pieces():
            (ids,) = self._coder.encode([piece])
            left = job.max_tokens - job.used_tokens
            job.used_tokens += min(len(ids), left)
            if len(ids) >= left:
                yield piece if len(ids) == left else self._coder.decode(ids[:left].tolist())
                return
            yield piece

    def _begin(self, key: Key, asked: messages.Request) -> _Job:
        (ids,) = self._coder.encode([asked.text()])
        job = _Job(key, asked, len(ids), asked.asked_tokens or self._cfg.limits.default_tokens)
        if self._in_flight >= self._cfg.limits.max_concurrent:
            raise ApiError(503, "overloaded", "the gateway answers as many requests as it may", retry_after_s=1)
        try:
            self._usage.reserve(key, job.prompt_tokens + job.max_tokens)
        except OverQuota as error:
            raise ApiError(429, "rate_limit_exceeded", str(error), retry_after_s=error.retry_after_s) from None
        self._in_flight += 1
        self.metrics.in_flight.set(self._in_flight)
        return job

    def _end(self, job: _Job) -> None:
        used = job.usage["total_tokens"] if job.used_tokens else 0  # a request without an answer costs no tokens
        self._usage.settle(job.key, job.prompt_tokens + job.max_tokens, used)
        self._in_flight -= 1
        self.metrics.in_flight.set(self._in_flight)
        if used:
            self.metrics.tokens.labels(job.request.model, "prompt").inc(job.prompt_tokens)
            self.metrics.tokens.labels(job.request.model, "completion").inc(job.used_tokens)

    def _race(self, netuid: int, asked: messages.Request, job: _Job, started_s: float) -> Race:
        routing, metagraph = self._cfg.routing, self._metagraph(netuid)
        if metagraph is None:
            raise ApiError(503, "no_metagraph", f"subnet {netuid} has not been read yet", retry_after_s=5)
        try:
            miners = self._router.order(metagraph, time.monotonic())
        except QueryFailed as error:
            raise ApiError(503, "no_miner", str(error), retry_after_s=30) from None
        text, sampling = asked.text(), (job.max_tokens, asked.temperature, asked.seed)

        def prompt(miner: MinerAnswer, left_s: float) -> Prompt:
            return Prompt(uuid.uuid4().hex, netuid, self._caller, miner.hotkey, text, *sampling, left_s)

        end_s = started_s + routing.deadline_s
        return Race(self._client, self._router, netuid, miners, prompt, routing, end_s)

    async def _body(self, request: Request) -> bytes:
        limits, body = self._cfg.limits, bytearray()
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limits.max_body_bytes:
                        message = f"the body has more than {limits.max_body_bytes} bytes"
                        raise ApiError(413, "body_too_large", message)
        except TimeoutError:
            message = f"the body did not arrive within {limits.body_timeout_s:g} s"
            raise ApiError(408, "body_too_slow", message) from None
        return bytes(body)


class _Stream(StreamingResponse):
    """Server-sent events. `stack` is closed however the response ends, also when it never began."""

    def __init__(self, chunks: AsyncIterator[bytes], stack: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={**headers, "Cache-Control": "no-cache"})
        self._stack = stack

    async def __call__(self, *args: object) -> None:
        async with self._stack:
            await super().__call__(*args)  # pyright: ignore[reportArgumentType] (scope, receive, send)


def make_app(gateway: Gateway) -> FastAPI:
    """The routes, and errors of every kind in OpenAI's shape."""
    app = FastAPI(title="RayTensor gateway", docs_url=None, redoc_url=None, openapi_url=None)
    created = int(time.time())

    @app.get("/v1/models")
    async def models(request: Request) -> dict:
        gateway.key(request)
        rows = [{"id": name, "object": "model", "created": created, "owned_by": "bittensor"} for name in gateway.models]
        return {"object": "list", "data": rows}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await counted(request, CompletionRequest)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await counted(request, ChatRequest)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4")

    async def counted(request: Request, schema: type[CompletionRequest] | type[ChatRequest]) -> Response:
        model, status = "", 500
        try:
            model, response = await gateway.answer(request, schema)
            status = response.status_code
            return response
        except ApiError as error:
            status = error.status
            raise
        finally:
            gateway.metrics.requests.labels(model, status).inc()

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body(), error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def not_found(_: Request, error: HTTPException) -> Response:
        told = ApiError(error.status_code, "not_found" if error.status_code == 404 else "bad_request", error.detail)
        return JSONResponse(told.body(), error.status_code, headers=error.headers)

    @app.exception_handler(ConfigError)
    async def no_keys(_: Request, error: ConfigError) -> Response:
        log.error("%s", error)  # the path of the key file is no business of a caller
        return JSONResponse(ApiError(503, "no_keys", "the gateway can't read its API keys").body(), 503)

    @app.exception_handler(Exception)  # the edge of the API: logged by the server with its traceback, told without it
    async def broken(_: Request, error: Exception) -> Response:
        return JSONResponse(ApiError(500, "internal_error", "the gateway failed; its log says why").body(), 500)

    return app
