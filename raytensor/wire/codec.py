"""Messages <-> bytes: `Task`, `Response` and `Prompt` as safetensors or JSON, a `Submission` as the file itself.

In: untrusted bytes and their bounds; or a message. Out: a message with checked shapes, types and sizes; or bytes. Both
formats give arrays that are equal to the bit. Never pickle. A body that is not a message raises `PayloadError`.
Knows nothing of HTTP, signatures or permissions. Only sizes, types and identities are checked here; whether the numbers
of an answer are valid (finite, a distribution) is checked by the mechanism, as inside a cluster.
"""

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from raytensor.config.wire import Bounds
from raytensor.types import Response, Submission, Task
from raytensor.wire import tensors
from raytensor.wire.errors import PayloadError

SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
CONTENT_TYPES = {"safetensors": SAFETENSORS, "json": JSON}
NDJSON = "application/x-ndjson"
FILE = "application/octet-stream"

# Kinds of token questions -> dimensions of `Response.ids` in their answers. Questions of other kinds may have no rows.
_TOKEN_KINDS = {"token": 2, "phrase": 3, "completion": 3}

_MAX_TEXT = 256  # characters of an id or an address: an id may hold two addresses and a digest
_INT32 = 2**31 - 1
_FLOAT32 = float(np.finfo(np.float32).max)


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
    """A task as a request's body."""
    fields: dict[str, Any] = {"task_id": task.task_id, "round": int(task.round), "netuid": int(task.netuid)}
    fields |= {"validator": task.validator, "hotkey": task.hotkey}
    fields |= {"top_k": int(task.top_k), "deadline_s": float(task.deadline_s)}
    if (task.kind, task.horizon) != ("token", 1):  # peers that know no other kind read the rest as ever
        fields |= {"kind": task.kind, "horizon": int(task.horizon)}
    if task.digest:
        fields["digest"] = task.digest
    return _encode("task/1", fields, {"tokens": task.tokens, "lengths": task.lengths}, content_type)


def decode_task(body: bytes, content_type: str, bounds: Bounds) -> Task:
    """A task from a request's body. Raises PayloadError."""
    if content_type == SAFETENSORS:
        return task_from(_unpack(body, {"tokens": ("I32", 2), "lengths": ("I32", 1)}), bounds)
    return task_from(_json_object(body, content_type), bounds)


def task_from(fields: dict[str, Any], bounds: Bounds) -> Task:
    """A task from its fields as JSON (or a safetensors file) gives them. Raises PayloadError."""
    _check_message(fields, "task/1")
    tokens = array(fields, "tokens", "I32", 2, bounds.max_rows, bounds.max_tokens)
    lengths = array(fields, "lengths", "I32", 1, bounds.max_rows)
    kind = _text(fields, "kind") if "kind" in fields else "token"
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
        task_id=_text(fields, "task_id"),
        round=_whole(fields, "round", 0, 2**53),
        netuid=_whole(fields, "netuid", 0, 65535),
        validator=_text(fields, "validator"),
        hotkey=_text(fields, "hotkey"),
        tokens=tokens,
        lengths=lengths,
        top_k=_whole(fields, "top_k", 1, bounds.max_top_k),
        deadline_s=_seconds(fields, "deadline_s"),
        kind=kind,
        horizon=_whole(fields, "horizon", 1, bounds.max_horizon) if "horizon" in fields else 1,
        digest=_text(fields, "digest") if "digest" in fields else "",
    )


def submission_from(body: bytes, task: Task) -> Submission:
    """The file that answers a task, with the digest of the received bytes."""
    digest = hashlib.blake2b(body, digest_size=32).hexdigest()
    return Submission(task.task_id, task.hotkey, digest, payload=body)


def encode_response(response: Response, content_type: str) -> bytes:
    """A response as an answer's body. Raises PayloadError if its arrays are not int32 and float32."""
    fields = {"task_id": response.task_id, "hotkey": response.hotkey, "elapsed_s": float(response.elapsed_s)}
    return _encode("response/1", fields, {"ids": response.ids, "probs": response.probs}, content_type)


def answer_bytes(task: Task, content_type: str) -> int:
    """The largest body of an honest answer to `task`: its arrays in that format, and its texts."""
    numbers = task.tokens.shape[0] * task.top_k
    phrase = max(1, task.horizon) if _TOKEN_KINDS.get(task.kind, 2) == 3 else 1
    texts = tensors.MAX_HEADER_BYTES + 4 * _MAX_TEXT
    if content_type == SAFETENSORS:
        return numbers * 4 * (phrase + 1) + texts
    # In JSON: at most 11 letters of an int32 and 24 of a float32, each with its comma, brackets, and a space.
    return numbers * (14 * phrase + 30) + texts


def answer_types(task: Task, content_type: str) -> tuple[str, ...]:
    """The content types of an answer to `task`, asked in `content_type`: the same, or a file where one may answer."""
    return (content_type,) if task.kind in _TOKEN_KINDS else (content_type, FILE)


def decode_response(body: bytes, content_type: str, task: Task) -> Response | Submission:
    """The answer to `task` from its body. Raises PayloadError, also for the answer to another question."""
    if content_type == FILE and task.kind not in _TOKEN_KINDS:
        return submission_from(body, task)
    if content_type == SAFETENSORS:
        return response_from(_unpack(body, {"ids": ("I32", _TOKEN_KINDS.get(task.kind, 2)), "probs": ("F32", 2)}), task)
    return response_from(_json_object(body, content_type), task)


def response_from(fields: dict[str, Any], task: Task) -> Response:
    """A response from its fields as JSON (or a safetensors file) gives them. Raises PayloadError."""
    _check_message(fields, "response/1")
    rows = task.tokens.shape[0]
    if _TOKEN_KINDS.get(task.kind, 2) == 3:
        ids = phrases(fields, "ids", rows, task.top_k, task.horizon)
    else:
        ids = array(fields, "ids", "I32", 2, rows, task.top_k)
    probs = array(fields, "probs", "F32", 2, rows, task.top_k)
    if ids.shape[:2] != probs.shape or ids.shape[0] != rows or ids.shape[1] > task.top_k:
        raise PayloadError(f"ids {ids.shape} and probs {probs.shape} must both be [{rows}, {task.top_k} at most]")
    if ids.ndim == 3 and ids.shape[2] > task.horizon:
        raise PayloadError(f"ids {ids.shape}: phrases have {task.horizon} tokens at most")
    if _text(fields, "task_id") != task.task_id or _text(fields, "hotkey") != task.hotkey:
        raise PayloadError("the answer belongs to another question or to another miner")
    return Response(task.task_id, task.hotkey, ids, probs, _seconds(fields, "elapsed_s", least=0.0))


def encode_prompt(prompt: Prompt) -> bytes:
    """A prompt as a request's body (JSON)."""
    return tensors.dump_object(
        {"message": "prompt/1", **{name: getattr(prompt, name) for name in Prompt.__dataclass_fields__}}
    )


def decode_prompt(body: bytes, bounds: Bounds) -> Prompt:
    """A prompt from a request's body (JSON). Raises PayloadError."""
    fields = tensors.load_object(body, "the body")
    _check_message(fields, "prompt/1")
    return Prompt(
        prompt_id=_text(fields, "prompt_id"),
        netuid=_whole(fields, "netuid", 0, 65535),
        validator=_text(fields, "validator"),
        hotkey=_text(fields, "hotkey"),
        text=_text(fields, "text", bounds.max_prompt_chars),
        max_tokens=_whole(fields, "max_tokens", 1, bounds.max_tokens),
        temperature=_seconds(fields, "temperature", least=0.0, most=100.0),
        seed=_whole(fields, "seed", 0, 2**53),
        deadline_s=_seconds(fields, "deadline_s"),
    )


def _encode(message: str, fields: dict[str, Any], arrays: dict[str, np.ndarray], content_type: str) -> bytes:
    if content_type == SAFETENSORS:
        texts = {name: value if isinstance(value, str) else repr(value) for name, value in fields.items()}
        return tensors.dumps(arrays, {"message": message, **texts})
    assert content_type == JSON, content_type
    return tensors.dump_object({"message": message, **fields, **arrays})


class _HeaderText(str):
    """A value of a safetensors header, where all values are text."""


def _unpack(body: bytes, kinds: dict[str, tuple[str, int]]) -> dict[str, Any]:
    arrays, texts = tensors.loads(body, kinds)
    return {name: _HeaderText(value) for name, value in texts.items()} | arrays


def _json_object(body: bytes, content_type: str) -> dict[str, Any]:
    if content_type != JSON:
        raise PayloadError(f"the content type must be {SAFETENSORS} or {JSON}")
    return tensors.load_object(body, "the body")


def _check_message(fields: dict[str, Any], message: str) -> None:
    if fields.get("message") != message:
        raise PayloadError(f"the body is not a {message}")


def array(fields: dict[str, Any], name: str, dtype: str, ndim: int, max_rows: int, max_columns: int = 0) -> np.ndarray:
    """A field as an array: an array as it is, or JSON lists after a check of their sizes and of every number."""
    value = fields.get(name)
    if isinstance(value, np.ndarray):
        return value
    if value == []:  # no rows: refused by the caller where some are needed
        return np.zeros((0,) * ndim, np.int32 if dtype == "I32" else np.float32)
    most = max_rows if ndim == 1 else max_columns
    rows: Any = [value] if ndim == 1 else value
    if not isinstance(rows, list) or not 1 <= len(rows) <= max_rows:
        raise PayloadError(f"{name}: must be a list of 1 to {max_rows}")
    kinds = {int} if dtype == "I32" else {int, float}  # by `type`, as bool is a subclass of int
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    if not all(isinstance(row, list) and len(row) == width for row in rows) or width > most:
        raise PayloadError(f"{name}: every row must be a list, all of one length up to {most}")
    flat = list(itertools.chain.from_iterable(rows))
    if not kinds.issuperset(map(type, flat)):
        raise PayloadError(f"{name}: must hold {'whole ' if dtype == 'I32' else ''}numbers only")
    try:
        wide = np.array(flat, np.int64 if dtype == "I32" else np.float64)
        wide = wide.reshape((width,) if ndim == 1 else (len(rows), width))
    except OverflowError:
        raise PayloadError(f"{name}: must hold numbers that fit 32 bits") from None
    most = _INT32 if dtype == "I32" else _FLOAT32
    if wide.size and not -most <= wide.min() <= wide.max() <= most:
        raise PayloadError(f"{name}: must hold numbers that fit 32 bits")
    return wide.astype(np.int32 if dtype == "I32" else np.float32)


def phrases(fields: dict[str, Any], name: str, max_rows: int, max_phrases: int, max_length: int) -> np.ndarray:
    """A field as an int32 array of three dimensions, bounded as by `array`."""
    value = fields.get(name)
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list) or not 1 <= len(value) <= max_rows:
        raise PayloadError(f"{name}: must be a list of 1 to {max_rows}")
    rows = [array({name: row}, name, "I32", 2, max_phrases, max_length) for row in value]
    if len({row.shape for row in rows}) != 1:
        raise PayloadError(f"{name}: every row must hold the same number of phrases, all of one length")
    return np.stack(rows)


def _text(fields: dict[str, Any], name: str, most: int = _MAX_TEXT) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise PayloadError(f"{name}: must be text of 1 to {most} characters")
    return str(value)


def _whole(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, _HeaderText) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise PayloadError(f"{name}: must be a whole number from {least} to {most}")
    return value


def _seconds(fields: dict[str, Any], name: str, least: float = 1e-6, most: float = 86400.0) -> float:
    value: Any = fields.get(name)
    if isinstance(value, _HeaderText) and len(value) < 40:
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:  # never so for NaN
        return float(value)
    raise PayloadError(f"{name}: must be a number from {least:g} to {most:g}")
