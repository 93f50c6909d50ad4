"""Messages as bytes: bit-equal both ways, and nothing but a message within its bounds gets in."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wirekit import answer, key, task

from raytensor.config.wire import Bounds
from raytensor.types import Response, Task
from raytensor.wire import codec, tensors
from raytensor.wire.codec import JSON, SAFETENSORS, Prompt
from raytensor.wire.errors import PayloadError

BOUNDS = Bounds(max_rows=64, max_tokens=128, max_top_k=64)
V, M = key("validator").ss58, key("miner").ss58
FORMATS = [SAFETENSORS, JSON]
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def same(left, right) -> bool:
    for name in left.__dataclass_fields__:
        a, b = getattr(left, name), getattr(right, name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
                return False
        elif a != b or type(a) is not type(b):
            return False
    return True


@st.composite
def tasks(draw):
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    tokens = draw(st.lists(st.integers(0, 2**31 - 1), min_size=rows * width, max_size=rows * width))
    lengths = draw(st.lists(st.integers(1, width), min_size=rows, max_size=rows))
    return Task(
        draw(text),
        draw(st.integers(0, 2**40)),
        draw(st.integers(0, 65535)),
        V,
        M,
        np.array(tokens, np.int32).reshape(rows, width),
        np.array(lengths, np.int32),
        draw(st.integers(1, 64)),
        draw(st.floats(0.001, 86400.0)),
    )


@st.composite
def responses(draw, finite):
    rows, width = draw(st.integers(1, 6)), draw(st.integers(0, 9))
    count = rows * width
    ids = draw(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=count, max_size=count))
    floats = st.floats(width=32, allow_nan=not finite, allow_infinity=not finite)
    probs = draw(st.lists(floats, min_size=count, max_size=count))
    question = task(V, M, rows=rows, top_k=9)
    shape = (rows, width)
    return question, Response(
        question.task_id, M, np.array(ids, np.int32).reshape(shape), np.array(probs, np.float32).reshape(shape), 0.25
    )


@pytest.mark.parametrize("content_type", FORMATS)
@given(message=tasks())
@settings(deadline=None)
def test_tasks_come_back_bit_for_bit(content_type, message):
    assert same(message, codec.decode_task(codec.encode_task(message, content_type), content_type, BOUNDS))


@given(pair=responses(finite=True))
@settings(deadline=None)
def test_responses_come_back_bit_for_bit_in_json(pair):
    question, message = pair
    assert same(message, codec.decode_response(codec.encode_response(message, JSON), JSON, question))


@given(pair=responses(finite=False))
@settings(deadline=None)
def test_responses_come_back_bit_for_bit_in_safetensors(pair):
    """NaN and infinities too: the mechanism judges numbers, and must see the same ones on every transport."""
    question, message = pair
    assert same(message, codec.decode_response(codec.encode_response(message, SAFETENSORS), SAFETENSORS, question))


def test_json_can_not_carry_nan():
    question = task(V, M)
    response = asyncio.run(answer(question))
    broken = dataclasses.replace(response, probs=np.full_like(response.probs, np.nan))
    with pytest.raises(PayloadError, match="NaN"):
        codec.encode_response(broken, JSON)
    with pytest.raises(PayloadError, match="float64 can't be sent"):
        codec.encode_response(dataclasses.replace(response, probs=response.probs.astype(np.float64)), SAFETENSORS)


@given(
    message=st.builds(
        Prompt,
        text,
        st.integers(0, 65535),
        st.just(V),
        st.just(M),
        text,
        st.integers(1, 128),
        st.floats(0, 100),
        st.integers(0, 2**53),
        st.floats(0.01, 86400),
    )
)
@settings(deadline=None)
def test_prompts_come_back(message):
    assert same(message, codec.decode_prompt(codec.encode_prompt(message), BOUNDS))


def test_the_container_is_what_the_safetensors_library_reads_and_writes():
    from safetensors.numpy import load, save

    arrays = {
        "ids": np.arange(12, dtype=np.int32).reshape(3, 4),
        "probs": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    }
    theirs = load(tensors.dumps(arrays, {"a": "b"}))
    saved = save(arrays, {"a": "b"})
    header = tensors.open_header(saved)
    ours = tensors.read(saved, header, {"ids": ("I32", 2), "probs": ("F32", 2)})
    assert header.metadata == {"a": "b"}
    for name, array in arrays.items():
        assert np.array_equal(theirs[name], array) and np.array_equal(ours[name], array)


# ------------------------------------------------------------------------------------------------------- nonsense


def reads(body, content_type=SAFETENSORS):
    """Decodes, and lets only PayloadError pass."""
    try:
        return codec.decode_task(body, content_type, BOUNDS)
    except PayloadError as error:
        assert str(error)
        return None


@pytest.mark.parametrize("content_type", FORMATS)
@given(body=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_random_bytes(content_type, body):
    assert reads(body, content_type) is None


@pytest.mark.parametrize("content_type", FORMATS)
@given(data=st.data())
@settings(max_examples=500, deadline=None)
def test_a_message_with_some_bytes_changed(content_type, data):
    """Whatever still reads is a message within the bounds."""
    body = bytearray(codec.encode_task(task(V, M, rows=3, width=5), content_type))
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for made in (reads(bytes(body), content_type), reads(bytes(body[:cut]), content_type)):
        if made is not None:
            rows, width = made.tokens.shape
            assert 1 <= rows <= 64 and 1 <= width <= 128 and made.lengths.shape == (rows,) and 1 <= made.top_k <= 64
            assert made.tokens.min() >= 0 and 1 <= made.lengths.min() and made.lengths.max() <= width
            assert made.tokens.dtype == made.lengths.dtype == np.int32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner)
    ),
)


@given(
    field=st.sampled_from(
        ["message", "task_id", "round", "netuid", "tokens", "lengths", "top_k", "deadline_s", "hotkey"]
    ),
    value=json_values,
)
@settings(max_examples=300, deadline=None)
def test_a_json_field_of_another_kind(field, value):
    message = json.loads(codec.encode_task(task(V, M, rows=2, width=3), JSON))
    message[field] = value
    made = reads(json.dumps(message).encode(), JSON)
    assert made is None or (type(made.round) is int and type(made.top_k) is int and made.tokens.dtype == np.int32)


@given(entry=json_values, name=st.sampled_from(["tokens", "lengths", "__metadata__"]))
@settings(max_examples=300, deadline=None)
def test_a_safetensors_entry_of_another_kind(entry, name):
    body = codec.encode_task(task(V, M, rows=2, width=3), SAFETENSORS)
    size = struct.unpack("<Q", body[:8])[0]
    header = json.loads(body[8 : 8 + size])
    if header[name] != entry:
        header[name] = entry
        altered = json.dumps(header).encode()
        assert reads(struct.pack("<Q", len(altered)) + altered + body[8 + size :]) is None


def repacked(**changes):
    """A task of 2 x 3 in a safetensors file whose header was changed."""
    body = codec.encode_task(task(V, M, rows=2, width=3), SAFETENSORS)
    size = struct.unpack("<Q", body[:8])[0]
    header = json.loads(body[8 : 8 + size])
    for name, entry in changes.items():
        header[name] = header.get(name, {}) | entry
    altered = json.dumps(header).encode()
    return struct.pack("<Q", len(altered)) + altered + body[8 + size :]


@pytest.mark.parametrize(
    "body, content_type, words",
    [
        (repacked(tokens={"shape": [2**39, 2**39]}), SAFETENSORS, "does not fit its bytes"),
        (repacked(tokens={"shape": [-2, -3]}), SAFETENSORS, "needs a shape"),
        (repacked(tokens={"shape": [True, 6]}), SAFETENSORS, "needs a shape"),
        (repacked(tokens={"data_offsets": [0, 10**9]}), SAFETENSORS, "does not fit its bytes"),
        (repacked(lengths={"data_offsets": [0, 8]}), SAFETENSORS, "overlap or leave gaps"),
        (repacked(tokens={"dtype": "F64"}), SAFETENSORS, "dtype must be I32"),
        (repacked(more={"dtype": "I32", "shape": [0], "data_offsets": [32, 32]}), SAFETENSORS, "exactly the arrays"),
        (repacked() + b"tail", SAFETENSORS, "bytes after its last array"),
        (struct.pack("<Q", 2**63) + b"{}", SAFETENSORS, "header says"),
        (b"[" * 100_000, JSON, "not JSON"),
        (b'{"round": ' + b"9" * 5000 + b"}", JSON, "not JSON"),
        (b'{"message": "task/1", "message": "task/1"}', JSON, "not JSON"),
        (b'{"message": "task/1", "deadline_s": NaN}', JSON, "not JSON"),
        (b"[]", JSON, "must be a JSON object"),
        (b"\x80\x04\x95", JSON, "not JSON"),
    ],
    ids=str,
)
def test_known_tricks(body, content_type, words):
    with pytest.raises(PayloadError, match=words):
        codec.decode_task(body, content_type, BOUNDS)


def test_bounds_of_a_task():
    for changes, words in [
        ({"rows": 65}, "1 to 64"),
        ({"width": 129}, "of 1 to 128|must be 0 to 128"),
        ({"top_k": 65}, "top_k"),
        ({"deadline_s": 0.0}, "deadline_s"),
    ]:
        for content_type in FORMATS:
            with pytest.raises(PayloadError, match=words):
                codec.decode_task(codec.encode_task(task(V, M, **changes), content_type), content_type, BOUNDS)
    good = task(V, M)
    for lengths in (good.lengths * 0, good.lengths + 24, good.lengths[:-1]):
        for content_type in FORMATS:
            with pytest.raises(PayloadError, match="lengths"):
                codec.decode_task(
                    codec.encode_task(dataclasses.replace(good, lengths=lengths), content_type), content_type, BOUNDS
                )


def test_an_answer_must_fit_its_question():
    question = task(V, M)
    response = asyncio.run(answer(question))
    for changes, words in [
        ({"ids": response.ids[:-1]}, "must both be"),
        ({"ids": response.ids[:-1], "probs": response.probs[:-1]}, "must both be"),
        ({"ids": np.tile(response.ids, 2), "probs": np.tile(response.probs, 2)}, "must both be|must be 0 to 16"),
        ({"task_id": "another"}, "another question"),
        ({"hotkey": V}, "another miner"),
        ({"elapsed_s": -1.0}, "elapsed_s"),
    ]:
        for content_type in FORMATS:
            body = codec.encode_response(dataclasses.replace(response, **changes), content_type)
            with pytest.raises(PayloadError, match=words):
                codec.decode_response(body, content_type, question)


def test_arrays_of_any_alignment_are_usable():
    body = codec.encode_task(task(V, M), SAFETENSORS)
    size = struct.unpack("<Q", body[:8])[0]
    for pad in range(4):
        shifted = struct.pack("<Q", size + pad) + body[8 : 8 + size] + b" " * pad + body[8 + size :]
        made = codec.decode_task(shifted, SAFETENSORS, BOUNDS)
        assert made.tokens.flags.aligned and same(made, task(V, M))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": [1, [{"b": 1, "b": 2}]]}',
        b'{"a": ":", "\\u0061": "\\":"}',
        b'{"a": "x\\\\", "a": ":"}',
    ],
    ids=str,
)
def test_duplicate_keys_are_found_at_every_depth(body):
    with pytest.raises(PayloadError, match="duplicated"):
        tensors.load_object(body, "the body")


@given(value=st.dictionaries(text, json_values, max_size=4))
@settings(max_examples=300, deadline=None)
def test_json_is_read_as_the_standard_library_reads_it(value):
    """Keys and texts with colons, quotes and escapes too; numbers beyond 64 bits are read as floats."""
    try:
        body = json.dumps(value, allow_nan=False).encode()
        read = tensors.load_object(body, "the body")
    except (ValueError, PayloadError):  # NaN, infinities, and whole numbers beyond a float
        return
    assert read == json.loads(body, parse_int=lambda digits: n if -(2**63) <= (n := int(digits)) < 2**64 else float(n))
