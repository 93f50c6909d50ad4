"""Payloads: both formats give the same values to the bit, the declaration bounds them, both transports check alike."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wirekit import client_settings, key, metagraph, run, server_settings

from raytensor.config.wire import Bounds
from raytensor.errors import ConfigError
from raytensor.payload import DTYPES, Array, Bytes, Fields, Json, Number, Schema, Text
from raytensor.types import Failure, Reason, Response, Submission, Task
from raytensor.validators.transport import InCluster
from raytensor.wire import codec
from raytensor.wire.client import WireClient
from raytensor.wire.codec import JSON, SAFETENSORS
from raytensor.wire.errors import PayloadError
from raytensor.wire.payloads import HERE_BYTES, checked
from raytensor.wire.server import WireServer

FORMATS = (SAFETENSORS, JSON)
VALIDATOR, MINER = key("validator"), key("miner")
FIELDS = Fields(
    grid=Array("float32", ((0, 3), (0, 4))),
    counts=Array("int64", ((0, 5),), optional=True),
    words=Text(12),
    share=Number(-1.0, 1.0),
    seed=Number(0, 2**63 - 1, whole=True),
    raw=Bytes(16),
    tree=Json(200),
)
SCHEMAS = {"mixed": Schema(FIELDS, FIELDS)}
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=3,
)


def grids(rows=3, width=4):
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    shapes = st.tuples(st.integers(0, rows), st.integers(0, width))
    return shapes.flatmap(
        lambda shape: st.lists(floats, min_size=math.prod(shape), max_size=math.prod(shape)).map(
            lambda flat: np.array(flat, np.float32).reshape(shape)
        )
    )


payloads = st.fixed_dictionaries(
    {
        "grid": grids(),
        "words": text,
        "share": st.floats(-1, 1),
        "seed": st.integers(0, 2**63 - 1),
        "raw": st.binary(max_size=16),
        "tree": trees,
    },
    optional={"counts": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5).map(lambda v: np.array(v, np.int64))},
)


def question(payload, schema=SCHEMAS["mixed"], kind="mixed", deadline_s=20.0):
    none = np.zeros((0, 0), np.int32)
    who = ("1/7/x", 7, 1, VALIDATOR.ss58, MINER.ss58)
    return Task(*who, none, none.ravel(), 1, deadline_s, kind=kind, payload=payload, answer=schema.answer)


def same(a, b):
    """Equal to the bit, types included."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@given(payload=payloads)
@settings(max_examples=60)
def test_a_payload_comes_back_to_the_bit_in_both_formats_and_as_in_the_cluster(payload):
    try:
        known = FIELDS.read(payload)  # what a Ray call hands on
    except ValueError as error:
        assert "tree" in str(error)  # a tree may be too large: then no format carries it
        return
    task = question(known)
    for content_type in FORMATS:
        asked = codec.decode_task(codec.encode_task(task, content_type), content_type, Bounds(), SCHEMAS)
        assert same(asked.payload, known) and asked.answer is FIELDS and asked.kind == "mixed"
        body = codec.encode_response(Response(task.task_id, task.hotkey, elapsed_s=0.5, payload=known), content_type)
        assert len(body) <= codec.answer_bytes(task, content_type)
        answered = codec.decode_response(body, content_type, task)
        assert isinstance(answered, Response) and same(answered.payload, known) and answered.elapsed_s == 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_arrays(dtype):
    kind = np.dtype(dtype).kind
    info = np.iinfo(dtype) if kind in "iu" else np.finfo(dtype) if kind == "f" else None
    ends = [info.min, info.max] if info is not None else [0, 1]
    value = np.array([[*ends, 0, 1]] * 2, dtype)
    fields = Fields(x=Array(dtype, (2, 4)), y=Array("uint8", (3,)))
    payload = {"x": value, "y": np.arange(3, dtype=np.uint8)}
    task = question(payload, Schema(fields, fields))
    for content_type in FORMATS:
        body = codec.encode_task(task, content_type)
        asked = codec.decode_task(body, content_type, Bounds(), {"mixed": Schema(fields, None)})
        assert same(asked.payload, payload)


GOOD = {
    "grid": np.ones((1, 2), np.float32),
    "words": "hi",
    "share": 0.5,
    "seed": 1,
    "raw": b"x",
    "tree": {"a": [1, 2.5, None]},
}
DEEP: list = []
for _ in range(300):
    DEEP = [DEEP]
BAD = [
    ({"grid": np.ones((4, 2), np.float32)}, "grid: dimension 0 must be 0 to 3, not 4"),
    ({"grid": np.full((1, 1), np.nan, np.float32)}, "grid: must hold no NaN|grid: JSON has no NaN"),
    ({"counts": np.zeros((2, 2), np.int64)}, "counts: .*dimensions|counts: must hold|counts: needs a shape"),
    ({"words": "x" * 13}, "words: must have 0 to 12 characters, not 13"),
    ({"share": 1.5}, "share: must be -1 to 1"),
    ({"share": True}, "share: must be a number, not bool"),
    ({"seed": 1.0}, "seed: must be a whole number, not float"),
    ({"seed": -1}, "seed: must be 0 to"),
    ({"raw": b"x" * 17}, "raw: must have 0 to 16 bytes, not 17"),
    ({"tree": "x" * 300}, "tree: must have at most 200 bytes as JSON, not 302"),
    ({"tree": DEEP}, "is not JSON|be sent as JSON"),
    ({"more": 1}, "'more' is no field"),
]


@pytest.mark.parametrize("changes, words", BAD, ids=[words.split()[0] + str(n) for n, (_, words) in enumerate(BAD)])
def test_what_is_outside_of_the_declaration_is_refused_in_the_same_words_everywhere(changes, words):
    broken = GOOD | changes
    task = question(GOOD)
    answer = checked(task, Response(task.task_id, task.hotkey, payload=broken))
    assert isinstance(answer, Failure) and answer.reason is Reason.MALFORMED
    for content_type in FORMATS:
        with pytest.raises(PayloadError, match=words):
            body = codec.encode_response(Response(task.task_id, task.hotkey, payload=broken), content_type)
            codec.decode_response(body, content_type, task)
        with pytest.raises(PayloadError, match=words):
            codec.decode_task(
                codec.encode_task(dataclasses.replace(task, payload=broken), content_type),
                content_type,
                Bounds(),
                SCHEMAS,
            )


def json_question(**payload):
    body = json.loads(codec.encode_task(question(GOOD), JSON))
    body["payload"] |= payload
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "payload, words",
    [
        ({"grid": [[1, 2], [3]]}, "grid: dimension 1 must have one length"),
        ({"grid": [1, 2]}, "grid: must be lists in 2 dimensions"),
        ({"grid": [[True, False]]}, "grid: must hold float or int only"),
        ({"grid": [["1"]]}, "grid: must hold float or int only"),
        ({"grid": [[1e39]]}, "grid: must hold numbers that fit float32"),
        ({"grid": [[[[]]]] * 1000}, "grid: dimension 0 must be 0 to 3, not 1000"),
        ({"counts": [1.5]}, "counts: must hold int only"),
        ({"counts": [2**63]}, "counts: must hold numbers that fit int64"),
        ({"raw": "%%%"}, "raw: "),
        ({"words": ["a"]}, "words: must be text, not list"),
        ({"share": "1"}, "share: must be a number, not str"),
    ],
    ids=str,
)
def test_json_of_another_kind(payload, words):
    with pytest.raises(PayloadError, match=words):
        codec.decode_task(json_question(**payload), JSON, Bounds(), SCHEMAS)


@given(
    value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x)),
    name=st.sampled_from(sorted(GOOD)),
)
def test_any_json_in_a_field_is_read_within_the_bounds_or_refused(value, name):
    try:
        task = codec.decode_task(json_question(**{name: value}), JSON, Bounds(), SCHEMAS)
    except PayloadError:
        return
    assert same(FIELDS.read(task.payload), dict(task.payload))


@given(data=st.data())
def test_a_safetensors_body_with_some_bytes_changed(data):
    body = bytearray(codec.encode_task(question(GOOD), SAFETENSORS))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        task = codec.decode_task(bytes(body), SAFETENSORS, Bounds(), SCHEMAS)
    except PayloadError:
        return
    if task.payload is not None:
        assert same(FIELDS.read(task.payload), dict(task.payload))


def test_kinds_are_known_by_their_schema_and_token_questions_keep_their_form():
    body = codec.encode_task(question(GOOD), JSON)
    with pytest.raises(PayloadError, match="no schema for questions of kind 'mixed'; it knows none"):
        codec.decode_task(body, JSON, Bounds())
    tokens = np.zeros((1, 3), np.int32)
    plain = Task("t", 1, 1, VALIDATOR.ss58, MINER.ss58, tokens, np.ones(1, np.int32), 4, 5.0)
    fields = json.loads(codec.encode_task(plain, JSON))
    assert fields["message"] == "task/1" and "payload" not in fields
    assert codec.decode_task(codec.encode_task(plain, JSON), JSON, Bounds(), SCHEMAS).payload is None


def test_an_answer_of_another_form_is_malformed():
    asked, plain = question(GOOD), dataclasses.replace(question(GOOD), answer=None, payload=None)
    for task, answer in (
        (asked, Submission(asked.task_id, asked.hotkey, "00", payload=b"x")),
        (asked, Response(asked.task_id, asked.hotkey)),
        (plain, Response(plain.task_id, plain.hotkey, payload=GOOD)),
    ):
        outcome = checked(task, answer)
        assert isinstance(outcome, Failure) and outcome.reason is Reason.MALFORMED
    assert codec.answer_types(asked, JSON) == (JSON,)


# ------------------------------------------------------------------------------------------------------- over HTTP


class _Threads(Array):
    """An array that notes the thread in which it is read."""

    __slots__ = ()
    seen: list[int] = []

    def read(self, value):
        self.seen.append(threading.get_ident())
        return Array.read(self, value)


def _scaled(task):
    factor = np.float32(task.payload["factor"])
    return Response(task.task_id, task.hotkey, payload={"x": task.payload["x"] * factor, "note": f"by {factor}"})


SCALE = {
    "scale": Schema(
        Fields(x=_Threads("float32", ((1, 200), 100)), factor=Number(0, 10)),
        Fields(x=Array("float32", ((1, 200), 100)), note=Text(40)),
    )
}


class _Fleet:
    """Miners of this process, asked as a fleet is."""

    def ask(self, tasks):
        for task in tasks:
            yield _answer(task)


def _answer(task):
    answer = _scaled(task)
    if task.payload["factor"] == 2.0:  # a miner that breaks its bounds
        return dataclasses.replace(answer, payload={"x": answer.payload["x"].astype(np.float64), "note": ""})
    if task.payload["factor"] == 3.0:
        return dataclasses.replace(answer, payload={"x": answer.payload["x"] * np.float32(np.nan), "note": ""})
    return answer


@pytest.mark.parametrize("form", ["safetensors", "json"])
def test_both_transports_give_the_same_answers_and_large_bodies_are_decoded_off_the_loop(form):
    """A miner's broken answer has the same reason and the same words on both."""
    rows = {1.0: 2, 1.5: 200, 2.0: 2, 3.0: 2}
    tasks = []
    for factor, n in rows.items():
        x = np.random.default_rng(n).normal(size=(n, 100)).astype(np.float32)
        task = question({"x": x, "factor": factor}, SCALE["scale"], "scale")
        tasks.append(dataclasses.replace(task, task_id=f"q{factor}"))

    async def handler(task):
        return _answer(task)

    async def main():
        settings_ = server_settings()
        async with WireServer(MINER.ss58, handler, settings_, schemas=SCALE) as server:
            server.update(metagraph([VALIDATOR.ss58, MINER.ss58]))
            host, port = server._listener.sockets[0].getsockname()[:2]
            async with WireClient(VALIDATOR, client_settings(body=form)) as client:
                for task in tasks:
                    _Threads.seen.clear()
                    answers[task.task_id] = await client.ask(task, f"{host}:{port}")
                    threads[task.task_id] = set(_Threads.seen)

    answers, threads = {}, {}
    run(main())
    for task, local in zip(tasks, InCluster(_Fleet()).ask(tasks, None), strict=True):
        wired = answers[task.task_id]
        assert type(wired) is type(local)
        if isinstance(local, Failure):
            assert local.reason is wired.reason is Reason.MALFORMED and local.detail in wired.detail
        else:
            assert same(dict(local.payload), dict(wired.payload))
    assert 200 * 100 * 4 > HERE_BYTES
    assert threads["q1.0"] == {threading.get_ident()} and threading.get_ident() not in threads["q1.5"]


def test_a_server_whose_bound_is_below_a_schema_says_so_at_its_start():
    settings_ = server_settings(bounds__max_body_bytes=10_000)
    with pytest.raises(ConfigError, match="may have 80.* bytes\n  fix: miners.wire.bounds.max_body_bytes=80"):
        WireServer(MINER.ss58, asyncio.sleep, settings_, schemas=SCALE)


def test_declarations_that_can_not_be_are_refused():
    for make, words in (
        (lambda: Array("float128", (1,)), "must be one of uint8, uint16"),
        (lambda: Array("int8", ()), "one dimension or more"),
        (lambda: Array("int8", ((3, 2),)), "least, most"),
        (lambda: Fields(A=Text(1)), "begin with a letter"),
        (lambda: Fields(_json=Text(1)), "begin with a letter"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
