"""A subnet's own HTTP/JSON protocol, as settings declare it (`asking.http`): questions and answers in its form.

In: a task with a payload, the JSON of an answer. Out: the request, signed as the wire's protocol says; a response
within the answer that the mechanism declares. Answers are bounded by that declaration and read as any stranger's.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from raytensor.config.wire import HttpForm
from raytensor.errors import ConfigError
from raytensor.payload import Schemas
from raytensor.types import Reason, Response, Task
from raytensor.wire import codec, tensors
from raytensor.wire.auth import Signer
from raytensor.wire.dialect import Dialect, Draft, media_type
from raytensor.wire.errors import PayloadError

FACTS = ("task_id", "kind", "netuid", "deadline_s")  # of a task; a field of the payload has the name first
AROUND_BYTES = 65536  # of an answer, for what is around its fields
_FIELD = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


class FormDialect(Dialect):
    """The client's side of a protocol of `form`, signed by `base`."""

    def __init__(self, base: Dialect, form: HttpForm) -> None:
        self._base, self._form = base, form
        self.name, self.mark, self.receiver = base.name, base.mark, base.receiver

    def draft(self, task: Task, body_format: str) -> Draft:
        if task.payload is None or task.answer is None:
            raise PayloadError(f"asking.http carries questions with a payload, not those of kind {task.kind!r}")
        values = {name: getattr(task, name) for name in FACTS} | {k: _plain(k, v) for k, v in task.payload.items()}
        body = orjson.dumps(_filled(self._form.body, values))
        assert self._form.path is not None
        return Draft(self._form.path, body, codec.JSON, task.deadline_s, method=self._form.method)

    def sign(self, signer: Signer, draft: Draft, receiver: str, nonce_ns: int) -> dict[str, str]:
        return self._base.sign(signer, draft, receiver, nonce_ns)

    def answer_bound(self, draft: Draft, task: Task, content_type: str) -> int:
        assert task.answer is not None
        if content_type != codec.JSON:
            raise PayloadError(f"the answer is {content_type or 'of no type'}, not {codec.JSON}")
        return task.answer.most_bytes(True) + AROUND_BYTES

    def decode_response(self, headers: Mapping[str, str], body: bytes, task: Task) -> Response:
        assert task.answer is not None and media_type(headers) == codec.JSON
        message = tensors.load_object(body, "the answer")
        found = {}
        for name, place in self._form.answer.items():
            try:
                found[name] = _at(message, place)
            except (KeyError, IndexError, TypeError, ValueError):
                if not task.answer.by_name[name].optional:
                    raise PayloadError(f"the answer has nothing at {place}") from None
        try:
            payload = task.answer.read(task.answer.from_json(found))
        except ValueError as error:
            raise PayloadError(str(error)) from None
        return Response(task.task_id, task.hotkey, payload=payload)

    def decode_error(self, status: int, body: bytes) -> tuple[Reason, str]:
        return self._base.decode_error(status, body)


def in_form(base: Dialect, form: HttpForm) -> Dialect:
    """`base`, or requests and answers in a form of the subnet's own, signed by it."""
    return base if form.path is None else FormDialect(base, form)


def refuse_unfit(form: HttpForm, schemas: Schemas) -> None:
    """Raises ConfigError for a form that can't carry the questions and answers of a mechanism."""
    if form.path is None:
        return
    if not schemas:
        raise ConfigError("asking.http: the mechanism's questions have no payload, which a form carries")
    for kind, schema in schemas.items():
        where = f"questions of kind {kind!r}"
        known = {*FACTS, *schema.question.by_name}
        if unknown := sorted(set(_fields(form.body)) - known):
            raise ConfigError(
                f"asking.http.body: {where}: no field {unknown[0]!r}; there is {', '.join(sorted(known))}"
            )
        if schema.answer is None:
            raise ConfigError(f"asking.http: {where}: the answer is a file, which a form can't carry")
        needed = {name for name, field in schema.answer.by_name.items() if not field.optional}
        if wrong := sorted((needed - form.answer.keys()) | (form.answer.keys() - schema.answer.by_name.keys())):
            raise ConfigError(
                f"asking.http.answer: {where}: give the place of {', '.join(needed)}; wrong: {wrong[0]!r}"
            )


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise PayloadError(f"{name}: JSON has no NaN and no infinities")
        return value.tolist()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with values in the place of "{name}": whole where it is all of a text, else within the text."""
    if isinstance(template, Mapping):
        return {name: filled for name, part in template.items() if (filled := _filled(part, values)) is not _LEFT_OUT}
    if isinstance(template, list | tuple):
        return [_filled(part, values) for part in template]
    if not isinstance(template, str):
        return template
    if alone := _FIELD.fullmatch(template):
        return values.get(alone[1], _LEFT_OUT)
    return _FIELD.sub(lambda field: _word(values.get(field[1], "")), template)


def _word(value: Any) -> str:
    """A value within a text: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_LEFT_OUT = object()  # an optional field of the question that it does not have


def _fields(template: Any) -> Iterator[str]:
    """Names that a template asks for."""
    if isinstance(template, Mapping):
        template = list(template.values())
    if isinstance(template, list | tuple):
        for part in template:
            yield from _fields(part)
    elif isinstance(template, str):
        yield from _FIELD.findall(template)


def _at(message: Any, place: str) -> Any:
    """The value at a dotted place, as "choices.0.text"; a number is an index of a list."""
    for part in place.split("."):
        if isinstance(message, list) and not part.isdecimal():
            raise ValueError(f"{part!r} is no index of a list")
        message = message[int(part)] if isinstance(message, list) else message[part]
    return message
