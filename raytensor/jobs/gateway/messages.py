"""What the API reads and writes: OpenAI's requests, answers, chunks of a stream and errors.

In: the bytes of a body. Out: a `Request`, checked; JSON objects. A field that is not supported is refused by its name,
never ignored. Knows nothing of miners or keys.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raytensor.config.gateway import GatewayLimits


class ApiError(Exception):
    """An answer with an error in OpenAI's shape. param: the field that is wrong."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}

    def body(self) -> dict[str, Any]:
        """{"error": {"message", "type", "param", "code"}}."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class _Common(BaseModel):
    """Fields of both kinds of requests. Those with one value only are accepted at that value."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=64)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    seed: int = Field(0, ge=0, le=2**53)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=256)
    n: Literal[1] = 1
    top_p: Literal[1] = 1
    frequency_penalty: Literal[0] = 0
    presence_penalty: Literal[0] = 0


class CompletionRequest(_Common):
    """Body of POST /v1/completions."""

    prompt: Annotated[str, Field(min_length=1)]

    def text(self) -> str:
        """What a miner is asked to continue."""
        return self.prompt

    @property
    def asked_tokens(self) -> int | None:
        return self.max_tokens


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, max_length=64)

    def line(self) -> str:
        parts = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return f"{self.role}: {parts}\n"


class ChatRequest(_Common):
    """Body of POST /v1/chat/completions. Miners continue text; the messages become lines "role: content"."""

    messages: list[Message] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(None, ge=1)

    def text(self) -> str:
        """What a miner is asked to continue."""
        return "".join(message.line() for message in self.messages) + "assistant:"

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


Request = CompletionRequest | ChatRequest


def read(schema: type[CompletionRequest] | type[ChatRequest], body: bytes, limits: GatewayLimits) -> Request:
    """The request of a body. Raises `ApiError` (400) that names the first field that is wrong."""
    try:
        request = schema.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        what = "is not supported" if first["type"] == "extra_forbidden" else first["msg"]
        raise ApiError(400, "invalid_value", f"{param or 'body'}: {what}", param=param) from None
    field = "messages" if schema is ChatRequest else "prompt"
    if len(request.text()) > limits.max_prompt_chars:
        message = f"{field}: has {len(request.text())} characters, at most {limits.max_prompt_chars} are read"
        raise ApiError(400, "context_length_exceeded", message, param=field)
    if (request.asked_tokens or 0) > limits.max_tokens:
        name = "max_completion_tokens" if getattr(request, "max_completion_tokens", None) else "max_tokens"
        message = f"{name}={request.asked_tokens}: must be at most {limits.max_tokens}"
        raise ApiError(400, "invalid_value", message, param=name)
    return request


class Shape:
    """Answers to one request. created: seconds since 1970."""

    def __init__(self, request: Request, request_id: str, created: int) -> None:
        self._chat = isinstance(request, ChatRequest)
        self._head = {"id": ("chatcmpl-" if self._chat else "cmpl-") + request_id, "created": created}
        self._head["model"] = request.model

    def whole(self, text: str, finish_reason: str, usage: dict[str, int]) -> dict[str, Any]:
        """The answer in one object."""
        kind = "chat.completion" if self._chat else "text_completion"
        said = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        return self._object(kind, said, finish_reason) | {"usage": usage}

    def first(self) -> list[bytes]:
        """What a stream begins with."""
        return [self._chunk({"role": "assistant", "content": ""}, None)] if self._chat else []

    def piece(self, text: str) -> bytes:
        """A piece of text."""
        return self._chunk({"content": text} if self._chat else text, None)

    def last(self, finish_reason: str, usage: dict[str, int] | None) -> list[bytes]:
        """What a stream ends with."""
        end = [self._chunk({} if self._chat else "", finish_reason)]
        if usage is not None:
            kind = "chat.completion.chunk" if self._chat else "text_completion"
            end.append(event({**self._head, "object": kind, "choices": [], "usage": usage}))
        return [*end, b"data: [DONE]\n\n"]

    def _chunk(self, said: Any, finish_reason: str | None) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return event(self._object(kind, {"delta" if self._chat else "text": said}, finish_reason))

    def _object(self, kind: str, said: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": kind, "choices": [choice]}


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
