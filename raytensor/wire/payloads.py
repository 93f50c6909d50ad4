"""Questions and answers with a payload <-> bytes, and the check that every answer goes through.

In: untrusted bytes, or a message; its declaration. Out: a message within the declaration; or bytes. Two forms:

    JSON         {"message", ..., "payload": {name: value}}; arrays are nested lists, bytes are base64
    safetensors  the fields of the message in the header's metadata; arrays as they are, bytes as U8; all other values
                 as one JSON object in the U8 array `_json`

Both give the same payload to the bit. Knows nothing of HTTP, signatures or what a payload means."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import orjson

from raytensor.payload import Bytes, Fields, Payload, Schemas, num_bytes
from raytensor.types import Failure, Reason, Response, Submission, Task
from raytensor.wire import tensors
from raytensor.wire.errors import PayloadError
from raytensor.wire.fields import HeaderText, check_message, seconds, text, whole

TASK, RESPONSE = "task/2", "response/2"
NO_SCHEMAS: Schemas = {}
HERE_BYTES = 32 * 1024  # a thread costs more than work on fewer bytes
T = TypeVar("T")
_REST = "_json"  # no name of a field begins so


class JsonBody:
    """fields: the JSON object. payload: the values by name, arrays and bytes still as JSON."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def payload(self, declared: Fields) -> Mapping[str, Any]:
        return self.fields.get("payload", {})


class FileBody:
    """A safetensors file and its header, as a `JsonBody`; arrays and bytes are read."""

    def __init__(self, data: bytes, header: tensors.Header) -> None:
        self._data, self._header = data, header
        self.fields: dict[str, Any] = {name: HeaderText(value) for name, value in header.metadata.items()}

    def payload(self, declared: Fields) -> Mapping[str, Any]:
        kinds = {name: field.tensor for name, field in declared.by_name.items() if field.tensor is not None}
        optional = {name for name in kinds if declared.by_name[name].optional}
        arrays: dict[str, Any] = dict(
            tensors.read(self._data, self._header, {**kinds, _REST: ("U8", 1)}, optional | {_REST})
        )
        rest = arrays.pop(_REST, None)
        values = {} if rest is None else tensors.load_object(rest.tobytes(), f"the array {_REST}")
        if both := values.keys() & kinds.keys():
            raise PayloadError(f"{min(both)}: must be an array of the safetensors file, not JSON")
        for name in arrays:
            if isinstance(declared.by_name[name], Bytes):
                arrays[name] = arrays[name].tobytes()
        return values | arrays


Body = JsonBody | FileBody


async def offload(num_bytes: int, work: Callable[[], T]) -> T:
    """The result of `work()`, which handles `num_bytes`: many in a thread, so that other requests do not wait."""
    return await asyncio.to_thread(work) if num_bytes > HERE_BYTES else work()


def encode_task(task: Task, json: bool) -> bytes:
    """A task with a payload as a request's body."""
    assert task.payload is not None
    fields: dict[str, Any] = {"task_id": task.task_id, "round": int(task.round), "netuid": int(task.netuid)}
    fields |= {"validator": task.validator, "hotkey": task.hotkey, "deadline_s": float(task.deadline_s)}
    return _encode(TASK, fields | {"kind": task.kind}, task.payload, json)


def task_from(body: Body, schemas: Schemas) -> Task:
    """A task with a payload, within the schema of its kind. Raises PayloadError."""
    fields = body.fields
    check_message(fields, TASK)
    kind = text(fields, "kind")
    if (schema := schemas.get(kind)) is None:
        known = f"it knows {', '.join(sorted(schemas))}" if schemas else "it knows none"
        raise PayloadError(f"kind: this miner has no schema for questions of kind {kind[:40]!r}; {known}")
    return Task(
        task_id=text(fields, "task_id"),
        round=whole(fields, "round", 0, 2**53),
        netuid=whole(fields, "netuid", 0, 65535),
        validator=text(fields, "validator"),
        hotkey=text(fields, "hotkey"),
        tokens=np.zeros((0, 0), np.int32),
        lengths=np.zeros(0, np.int32),
        top_k=1,
        deadline_s=seconds(fields, "deadline_s"),
        kind=kind,
        payload=_read(body, schema.question),
        answer=schema.answer,
    )


def encode_response(response: Response, json: bool) -> bytes:
    """A response with a payload as an answer's body."""
    assert response.payload is not None
    fields = {"task_id": response.task_id, "hotkey": response.hotkey, "elapsed_s": float(response.elapsed_s)}
    return _encode(RESPONSE, fields, response.payload, json)


def response_from(body: Body, task: Task) -> Response:
    """The answer to a task, within `task.answer`. Raises PayloadError, also for the answer to another question."""
    assert task.answer is not None
    fields = body.fields
    check_message(fields, RESPONSE)
    if text(fields, "task_id") != task.task_id or text(fields, "hotkey") != task.hotkey:
        raise PayloadError("the answer belongs to another question or to another miner")
    elapsed_s = seconds(fields, "elapsed_s", least=0.0)
    return Response(task.task_id, task.hotkey, elapsed_s=elapsed_s, payload=_read(body, task.answer))


def checked(task: Task, answer: Response | Submission | Failure) -> Response | Submission | Failure:
    """The answer with its payload in canonical form, or MALFORMED: for every answer, in the cluster, in the miner's
    server before it is sent, and in the asker."""
    if isinstance(answer, Failure) or (task.answer is None and isinstance(answer, Submission)):
        return answer
    payload = answer.payload if isinstance(answer, Response) else None
    if task.answer is None and payload is None:
        return answer
    if task.answer is None or isinstance(answer, Submission):
        why = "carries a payload that the question does not ask for" if task.answer is None else "is a file"
        return Failure(task.task_id, task.hotkey, Reason.MALFORMED, f"the answer {why}")
    try:
        read = task.answer.read(payload)
    except ValueError as error:
        return Failure(task.task_id, task.hotkey, Reason.MALFORMED, str(error))
    return Response(answer.task_id, answer.hotkey, elapsed_s=answer.elapsed_s, payload=read)


def num_bytes_of(answer: Response | Submission) -> int:
    """About the memory of an answer."""
    if isinstance(answer, Submission):
        return len(answer.payload)
    return answer.ids.nbytes + answer.probs.nbytes + num_bytes(answer.payload)


def _read(body: Body, declared: Fields) -> dict[str, Any]:
    try:
        return declared.read(declared.from_json(body.payload(declared)))
    except ValueError as error:
        raise PayloadError(str(error)) from None


def _encode(message: str, fields: dict[str, Any], payload: Payload, json: bool) -> bytes:
    if json:
        return tensors.dump_object({"message": message, **fields, "payload": _plain(payload)})
    arrays = {name: value for name, value in payload.items() if isinstance(value, np.ndarray)}
    arrays |= {name: np.frombuffer(value, np.uint8) for name, value in payload.items() if isinstance(value, bytes)}
    if rest := {name: value for name, value in payload.items() if name not in arrays}:
        arrays[_REST] = np.frombuffer(tensors.dump_object(rest), np.uint8)
    # Large elements first, so that all are aligned.
    ordered = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in fields.items()}
    return tensors.dumps(ordered, {"message": message, **texts})


def _plain(payload: Payload) -> orjson.Fragment:
    """The payload as JSON."""
    values = dict(payload)
    for name, value in values.items():
        if isinstance(value, bytes):
            values[name] = base64.b64encode(value).decode()
    return orjson.Fragment(tensors.dump_object(values))
