"""The seam between the wire and its protocols: how a protocol writes the caller and the message of a request.

In a server, a `Dialect` reads a claim from headers, proves it, decodes the task, and encodes the answer or the refusal.
In a client it makes a request of a task and a `Response` of the bytes of an answer. Protocols: btauth (`dialects.py`),
Epistula, axon_v10. In all of them nothing is decoded before its signature is checked.
Knows nothing of sockets, policies or stores.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from raytensor.config.wire import Bounds, Freshness
from raytensor.errors import WireError
from raytensor.payload import Schemas
from raytensor.types import Reason, Response, Submission, Task
from raytensor.wire import codec, errors
from raytensor.wire.auth import Caller, Claim, Signer
from raytensor.wire.codec import Prompt

ASK = "/ask"
COMPLETE = "/complete"
MAX_ERROR_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Draft:
    """A request before it is signed; each attempt is signed anew."""

    path: str
    body: bytes
    content_type: str
    timeout_s: float = 0.0
    body_hash: str = ""  # in protocols that sign a hash from a header
    method: str = "POST"


class Dialect:
    """The common part: the paths /ask and /complete, bodies and errors. Protocols override what differs."""

    name = ""
    # A header (lower case) that only requests of this protocol have.
    mark = ""
    # The header (lower case) that names the hotkey that a request is signed for.
    receiver = ""

    # ---- server

    def speaks(self, headers: Mapping[str, str], path: str) -> bool:
        """Whether a request uses this protocol."""
        return self.mark in headers

    def route(self, path: str) -> str | None:
        """ASK or COMPLETE for a path of this protocol, None for any other."""
        return path if path in (ASK, COMPLETE) else None

    def read(self, headers: Mapping[str, str], receiver: str, now_ns: int, fresh: Freshness) -> Claim:
        """Check header shape, receiver and freshness, without the body. Raises an `AuthError`."""
        raise NotImplementedError

    def prove(self, claim: Claim, *, method: str, target: str, body: bytes) -> Caller:
        """Check the signature. Raises BadSignature."""
        raise NotImplementedError

    def decode_task(
        self, claim: Claim, headers: Mapping[str, str], body: bytes, bounds: Bounds, schemas: Schemas
    ) -> Task:
        """The task of a proved request. Raises PayloadError."""
        return codec.decode_task(body, media_type(headers), bounds, schemas)

    def decode_prompt(self, headers: Mapping[str, str], body: bytes, bounds: Bounds) -> Prompt:
        """The prompt of a proved request. Raises PayloadError."""
        if media_type(headers) != codec.JSON:
            raise errors.PayloadError(f"the content type must be {codec.JSON}")
        return codec.decode_prompt(body, bounds)

    def encode_response(
        self, claim: Claim, headers: Mapping[str, str], task: Task, response: Response | Submission
    ) -> tuple[dict[str, str], bytes]:
        """Headers and body of an answer, in the format of the question; a file is sent as it is."""
        if isinstance(response, Submission):
            return {"Content-Type": codec.FILE}, response.payload
        content_type = media_type(headers)
        return {"Content-Type": content_type}, codec.encode_response(response, content_type)

    def encode_error(self, error: WireError) -> tuple[dict[str, str], bytes]:
        """Headers and body of a refusal."""
        return {"Content-Type": codec.JSON}, errors.to_json(error)

    # ---- client

    def draft(self, task: Task, body_format: str) -> Draft:
        """A task as an unsigned request. Raises PayloadError for a task that the protocol can't carry."""
        content_type = codec.CONTENT_TYPES[body_format]
        return Draft(ASK, codec.encode_task(task, content_type), content_type, task.deadline_s)

    def sign(self, signer: Signer, draft: Draft, receiver: str, nonce_ns: int) -> dict[str, str]:
        """The headers that prove a request; each attempt needs a new nonce."""
        raise NotImplementedError

    def answer_bound(self, draft: Draft, task: Task, content_type: str) -> int:
        """The largest body of an answer to a draft. Raises PayloadError for a format that was not asked for."""
        accepted = codec.answer_types(task, draft.content_type)
        if content_type not in accepted:
            raise errors.PayloadError(f"the answer is {content_type or 'of no type'}, not {' or '.join(accepted)}")
        return codec.answer_bytes(task, content_type)

    def decode_response(self, headers: Mapping[str, str], body: bytes, task: Task) -> Response | Submission:
        """The answer to a task. Raises PayloadError."""
        return codec.decode_response(body, media_type(headers), task)

    def decode_error(self, status: int, body: bytes) -> tuple[Reason, str]:
        """Why a miner refused a question: the reason of the `Failure`, and its text."""
        name, text, fix, failure = _error_fields(body)
        detail = f"{status} {name or 'by HTTP'}" + (f": {text}" if text else "") + (f" ({fix})" if fix else "")
        if failure in list(Reason):
            return Reason(failure), detail
        if status in (401, 403, 429):
            return Reason.REFUSED, detail
        return (Reason.TIMEOUT if status == 408 else Reason.ERROR), detail


def media_type(headers: Mapping[str, str]) -> str:
    """The content type without its parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _error_fields(body: bytes) -> tuple[str, str, str, str]:
    """Name, reason, fix and failure of an error; untrusted text, so cut to 300 printable characters each.

    Besides our own shape, those of other servers: {"detail": text or list} (FastAPI), {"error": {"code", "message"}}
    (OpenAI), {"message": text} (axons of bittensor 10), {"error": text}.
    """
    try:
        message = json.loads(body) if len(body) <= MAX_ERROR_BYTES else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        return "", "", "", ""
    inner = message.get("error")
    if isinstance(inner, dict):
        message = {"error": inner.get("code") or inner.get("type", ""), "reason": inner.get("message", "")}
    detail = message.get("detail", "")
    if isinstance(detail, list):
        detail = "; ".join(str(one["msg"]) for one in detail[:5] if isinstance(one, dict) and "msg" in one)
    elif isinstance(detail, dict):
        detail = detail.get("message") or detail.get("msg") or ""
    message.setdefault("reason", message.get("message") or detail)
    words = (message.get(key, "") for key in ("error", "reason", "fix", "failure"))
    parts = ["".join(c for c in str(word)[:300] if c.isprintable()) if _is_word(word) else "" for word in words]
    return parts[0], parts[1], parts[2], parts[3]


def _is_word(value: object) -> bool:
    """Whether a value of JSON is shown as it is: text, or the number of an error."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)
