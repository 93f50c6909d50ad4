"""Messages <-> bytes: `Task`, `Response` and `Prompt` as safetensors or JSON, a `Submission` as the file itself.

In: untrusted bytes and their bounds; or a message. Out: a message with checked shapes, types and sizes; or bytes. Both
formats give arrays that are equal to the bit. Never pickle. A body that is not a message raises `PayloadError`.
Knows nothing of HTTP, signatures or permissions. Only sizes, types and identities are checked here; whether the numbers
of an answer are valid (finite, a distribution) is checked by the mechanism, as inside a cluster.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor.config.wire import Bounds
from raytensor.payload import Schemas
from raytensor.types import Response, Submission, Task
from raytensor.wire import payloads, tensors
from raytensor.wire.errors import PayloadError
from raytensor.wire.fields import MAX_TEXT, HeaderText, array, check_message, seconds, text, whole
from raytensor.wire.payloads import NO_SCHEMAS

SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
CONTENT_TYPES = {"safetensors": SAFETENSORS, "json": JSON}
NDJSON = "application/x-ndjson"
FILE = "application/octet-stream"

# Kinds of token questions -> dimensions of `Response.ids` in their answers. Questions of other kinds may have no rows.
_TOKEN_KINDS = {"token": 2, "phrase": 3, "completion": 3}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as text, from a client to one miner. The answer is a stream of pieces of text.

    max_tokens   largest number of tokens of the answer.
    temperature  0 always selects the most probable token.
    seed         of the sampling.
    """

    prompt_id: str
    netuid: int
    validator: str  # hotkey of the caller (ss58)
    hotkey: str  # hotkey of the miner (ss58)
    text: str
    max_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    deadline_s: float = 60.0


def encode_task(task: Task, content_type: str) -> bytes:
    """A task as a request's body. Raises PayloadError for a payload that the format can't carry."""
    if task.payload is not None:
        return payloads.encode_task(task, json=content_type == JSON)
    fields: dict[str, Any] = {"task_id": task.task_id, "round": int(task.round), "netuid": int(task.netuid)}
    fields |= {"validator": task.validator, "hotkey": task.hotkey}
    fields |= {"top_k": int(task.top_k), "deadline_s": float(task.deadline_s)}
    if (task.kind, task.horizon) != ("token", 1):  # peers that know no other kind read the rest as ever
        fields |= {"kind": task.kind, "horizon": int(task.horizon)}
    if task.digest:
        fields["digest"] = task.digest
    return _encode("task/1", fields, {"tokens": task.tokens, "lengths": task.lengths}, content_type)


def decode_task(body: bytes, content_type: str, bounds: Bounds, schemas: Schemas = NO_SCHEMAS) -> Task:
    """A task from a request's body. schemas: of the kinds with a payload. Raises PayloadError."""
    if content_type == SAFETENSORS:
        header = tensors.open_header(body)
        if header.metadata.get("message") == payloads.TASK:
            return payloads.task_from(payloads.FileBody(body, header), schemas)
        return task_from(_unpack(body, header, {"tokens": ("I32", 2), "lengths": ("I32", 1)}), bounds)
    fields = _json_object(body, content_type)
    if fields.get("message") == payloads.TASK:
        return payloads.task_from(payloads.JsonBody(fields), schemas)
    return task_from(fields, bounds)


def task_from(fields: dict[str, Any], bounds: Bounds) -> Task:
    """A task from its fields as JSON (or a safetensors file) gives them. Raises PayloadError."""
    check_message(fields, "task/1")
    tokens = array(fields, "tokens", "int32", bounds.max_rows, bounds.max_tokens)
    lengths = array(fields, "lengths", "int32", bounds.max_rows)
    kind = text(fields, "kind") if "kind" in fields else "token"
    least = 1 if kind in _TOKEN_KINDS else 0
    rows, longest = tokens.shape
    if not least <= rows <= bounds.max_rows or not least <= longest <= bounds.max_tokens:
        accepted = f"{least} to {bounds.max_rows} of {least} to {bounds.max_tokens} are read"
        raise PayloadError(f"tokens: {rows} rows of {longest}; {accepted}")
    if lengths.shape != (rows,):
        raise PayloadError(f"lengths: {lengths.shape[0]} of them for {rows} rows")
    if rows and (lengths.min() < 1 or lengths.max() > longest or tokens.min() < 0):
        raise PayloadError(f"lengths must lie between 1 and {longest}, and tokens must be 0 or greater")
    return Task(
        task_id=text(fields, "task_id"),
        round=whole(fields, "round", 0, 2**53),
        netuid=whole(fields, "netuid", 0, 65535),
        validator=text(fields, "validator"),
        hotkey=text(fields, "hotkey"),
        tokens=tokens,
        lengths=lengths,
        top_k=whole(fields, "top_k", 1, bounds.max_top_k),
        deadline_s=seconds(fields, "deadline_s"),
        kind=kind,
        horizon=whole(fields, "horizon", 1, bounds.max_horizon) if "horizon" in fields else 1,
        digest=text(fields, "digest") if "digest" in fields else "",
    )


def submission_from(body: bytes, task: Task) -> Submission:
    """The file that answers a task, with the digest of the received bytes."""
    digest = hashlib.blake2b(body, digest_size=32).hexdigest()
    return Submission(task.task_id, task.hotkey, digest, payload=body)


def encode_response(response: Response, content_type: str) -> bytes:
    """A response as an answer's body. Raises PayloadError for what the format can't carry."""
    if response.payload is not None:
        return payloads.encode_response(response, json=content_type == JSON)
    for name, made, dtype in (("ids", response.ids, np.int32), ("probs", response.probs, np.float32)):
        if content_type == SAFETENSORS and made.dtype != dtype:
            raise PayloadError(f"{name}: {made.dtype} can't be sent, only {np.dtype(dtype)}")
    fields = {"task_id": response.task_id, "hotkey": response.hotkey, "elapsed_s": float(response.elapsed_s)}
    return _encode("response/1", fields, {"ids": response.ids, "probs": response.probs}, content_type)


def answer_bytes(task: Task, content_type: str) -> int:
    """The largest body of an honest answer to `task`: its arrays in that format, and its texts."""
    if task.answer is not None:
        return task.answer.most_bytes(content_type == JSON) + tensors.MAX_HEADER_BYTES + 4 * MAX_TEXT
    numbers = task.tokens.shape[0] * task.top_k
    phrase = max(1, task.horizon) if _TOKEN_KINDS.get(task.kind, 2) == 3 else 1
    texts = tensors.MAX_HEADER_BYTES + 4 * MAX_TEXT
    if content_type == SAFETENSORS:
        return numbers * 4 * (phrase + 1) + texts
    # In JSON: at most 11 letters of an int32 and 24 of a float32, each with its comma, brackets, and a space.
    return numbers * (14 * phrase + 30) + texts


def answer_types(task: Task, content_type: str) -> tuple[str, ...]:
    """The content types of an answer to `task`, asked in `content_type`: the same, or a file where one may answer."""
    no_file = task.kind in _TOKEN_KINDS or task.answer is not None
    return (content_type,) if no_file else (content_type, FILE)


def decode_response(body: bytes, content_type: str, task: Task) -> Response | Submission:
    """The answer to `task` from its body. Raises PayloadError, also for the answer to another question."""
    if content_type == FILE and FILE in answer_types(task, content_type):
        return submission_from(body, task)
    if content_type == SAFETENSORS:
        header, ndim = tensors.open_header(body), _TOKEN_KINDS.get(task.kind, 2)
        if task.answer is not None:
            return payloads.response_from(payloads.FileBody(body, header), task)
        return response_from(_unpack(body, header, {"ids": ("I32", ndim), "probs": ("F32", 2)}), task)
    fields = _json_object(body, content_type)
    if task.answer is not None:
        return payloads.response_from(payloads.JsonBody(fields), task)
    return response_from(fields, task)


def response_from(fields: dict[str, Any], task: Task) -> Response:
    """A response from its fields as JSON (or a safetensors file) gives them. Raises PayloadError."""
    check_message(fields, "response/1")
    rows = task.tokens.shape[0]
    longest = (task.horizon,) if _TOKEN_KINDS.get(task.kind, 2) == 3 else ()
    ids = array(fields, "ids", "int32", rows, task.top_k, *longest)
    probs = array(fields, "probs", "float32", rows, task.top_k)
    if ids.shape[:2] != probs.shape or ids.shape[0] != rows or ids.shape[1] > task.top_k:
        raise PayloadError(f"ids {ids.shape} and probs {probs.shape} must both be [{rows}, {task.top_k} at most]")
    if ids.ndim == 3 and ids.shape[2] > task.horizon:
        raise PayloadError(f"ids {ids.shape}: phrases have {task.horizon} tokens at most")
    if text(fields, "task_id") != task.task_id or text(fields, "hotkey") != task.hotkey:
        raise PayloadError("the answer belongs to another question or to another miner")
    return Response(task.task_id, task.hotkey, ids, probs, seconds(fields, "elapsed_s", least=0.0))


def encode_prompt(prompt: Prompt) -> bytes:
    """A prompt as a request's body (JSON)."""
    return tensors.dump_object(
        {"message": "prompt/1", **{name: getattr(prompt, name) for name in Prompt.__dataclass_fields__}}
    )


def decode_prompt(body: bytes, bounds: Bounds) -> Prompt:
    """A prompt from a request's body (JSON). Raises PayloadError."""
    fields = tensors.load_object(body, "the body")
    check_message(fields, "prompt/1")
    return Prompt(
        prompt_id=text(fields, "prompt_id"),
        netuid=whole(fields, "netuid", 0, 65535),
        validator=text(fields, "validator"),
        hotkey=text(fields, "hotkey"),
        text=text(fields, "text", bounds.max_prompt_chars),
        max_tokens=whole(fields, "max_tokens", 1, bounds.max_tokens),
        temperature=seconds(fields, "temperature", least=0.0, most=100.0),
        seed=whole(fields, "seed", 0, 2**53),
        deadline_s=seconds(fields, "deadline_s"),
    )


def _encode(message: str, fields: dict[str, Any], arrays: dict[str, np.ndarray], content_type: str) -> bytes:
    if content_type == SAFETENSORS:
        texts = {name: value if isinstance(value, str) else repr(value) for name, value in fields.items()}
        return tensors.dumps(arrays, {"message": message, **texts})
    assert content_type == JSON, content_type
    return tensors.dump_object({"message": message, **fields, **arrays})


def _unpack(body: bytes, header: tensors.Header, kinds: dict[str, tuple[str, int]]) -> dict[str, Any]:
    return {name: HeaderText(value) for name, value in header.metadata.items()} | tensors.read(body, header, kinds)


def _json_object(body: bytes, content_type: str) -> dict[str, Any]:
    if content_type != JSON:
        raise PayloadError(f"the content type must be {SAFETENSORS} or {JSON}")
    return tensors.load_object(body, "the body")
