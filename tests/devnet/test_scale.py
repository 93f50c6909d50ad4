"""Our codec against scalecodec, an independent one: what we encode it reads, what it encodes we read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset

from raytensor.devnet.builtin import compact, read_compact
from raytensor.devnet.scale import Codecs, Encoded, ScaleError, declare_enum, declare_struct

Pair = declare_struct("TestPair", {"left": "u16", "class": "Vec<u8>"}, "tests::Pair")
declare_enum(
    "TestShape",
    {"Point": 0, "Circle": (3, "u32"), "Box": (5, ("u8", "u8")), "Named": (9, {"a": "u64"})},
    "tests::Shape",
)

CODECS = Codecs()
OTHER = RuntimeConfigurationObject(ss58_format=42)
OTHER.update_type_registry(load_type_registry_preset("legacy"))


def uints(bits: int):
    return st.integers(0, (1 << bits) - 1)


def ints(bits: int):
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)


# type string -> (values, the same value as scalecodec's `encode` takes it)
SHARED = {
    "u8": (uints(8), int),
    "u64": (uints(64), int),
    "u128": (uints(128), int),
    "i16": (ints(16), int),
    "i128": (ints(128), int),
    "bool": (st.booleans(), bool),
    "Compact<u32>": (uints(32), int),
    "Compact<u128>": (uints(128), int),
    "Option<u16>": (st.none() | uints(16), lambda v: v),
    "Vec<u16>": (st.lists(uints(16), max_size=80).map(tuple), list),
    "Vec<bool>": (st.lists(st.booleans(), max_size=80).map(tuple), list),
    "Vec<(u16, u64)>": (st.lists(st.tuples(uints(16), uints(64)), max_size=20).map(tuple), list),
    "Vec<Compact<u64>>": (st.lists(uints(64), max_size=20).map(tuple), list),
    "Vec<Vec<u8>>": (st.lists(st.binary(max_size=20), max_size=9).map(tuple), lambda v: ["0x" + b.hex() for b in v]),
    "(u8, Compact<u32>, bool)": (st.tuples(uints(8), uints(32), st.booleans()), lambda v: v),
    "[u8; 32]": (st.binary(min_size=32, max_size=32), lambda v: "0x" + v.hex()),
    "BTreeMap<u16, u64>": (st.dictionaries(uints(16), uints(64), max_size=12), lambda v: sorted(v.items())),
}


@pytest.mark.parametrize("type_", SHARED)
def test_bytes_are_those_of_scalecodec(type_):
    values, theirs = SHARED[type_]
    name = type_ if type_[0] == "[" else type_.replace(" ", "")
    codec = CODECS(type_)

    @settings(max_examples=60, deadline=None)
    @given(values)
    def check(value):
        ours = codec.encode(value)
        assert codec.decode(ours) == value
        other = OTHER.create_scale_object(name)
        assert ours == bytes(other.encode(theirs(value)).data)
        OTHER.create_scale_object(name, ScaleBytes(bytearray(ours))).decode()

    check()


@given(uints(536))
def test_compact_integers_round_trip_at_every_size(value):
    assert read_compact(compact(value) + b"rest", 0) == (value, len(compact(value)))


@pytest.mark.parametrize("edge", [0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, (1 << 64) - 1])
def test_compact_edges(edge):
    other = OTHER.create_scale_object("Compact<u128>")
    assert compact(edge) == bytes(other.encode(edge).data)


def test_structs_take_namedtuples_dicts_and_objects_and_odd_field_names():
    codec = CODECS("TestPair")
    expected = b"\x07\x00\x08ab"
    assert codec.encode(Pair(7, b"ab")) == codec.encode({"left": 7, "class": b"ab"}) == expected
    assert codec.encode((7, b"ab")) == expected
    assert codec.decode(expected) == Pair(7, b"ab")
    with pytest.raises(ScaleError, match="2"):
        codec.encode((7,))


@pytest.mark.parametrize(
    "value, data",
    [
        ("Point", "00"),
        (("Circle", 5), "0305000000"),
        (("Box", (1, 2)), "050102"),
        (("Named", (7,)), "090700000000000000"),
    ],
)
def test_enums(value, data):
    codec = CODECS("TestShape")
    assert codec.encode(value).hex() == data
    decoded = codec.decode(bytes.fromhex(data))
    assert decoded == value


@pytest.mark.parametrize(
    "type_, value, data",
    [
        ("AccountId32", bytes(range(32)), bytes(range(32))),
        ("String", "τao", b"\x10\xcf\x84ao"),
        ("BTreeSet<u16>", (1, 2), b"\x08\x01\x00\x02\x00"),
        ("I96F32", -5, (-5).to_bytes(16, "little", signed=True)),
        ("Result<(), u8>", ("Err", 3), b"\x01\x03"),
        ("Result<(), u8>", ("Ok", ()), b"\x00"),
        ("MultiAddress", ("Id", bytes(32)), bytes(33)),
        ("BoundedVec<u8, 4>", b"abcd", b"\x10abcd"),
        ("[(u8, u8); 2]", ((1, 2), (3, 4)), b"\x01\x02\x03\x04"),
    ],
)
def test_other_types(type_, value, data):
    assert CODECS(type_).encode(value) == data
    assert CODECS(type_).decode(data) == value


@pytest.mark.parametrize(
    "dtype, type_", [("u2", "Vec<u16>"), ("u8", "Vec<u64>"), ("?", "Vec<bool>"), ("i8", "Vec<u16>")]
)
def test_numpy_arrays_encode_as_sequences(dtype, type_):
    array = np.array([1, 0, 1], dtype=dtype)
    assert CODECS(type_).encode(array) == CODECS(type_).encode(tuple(array.tolist()))


@pytest.mark.parametrize(
    "type_, value",
    [
        ("u8", 256),
        ("u8", -1),
        ("u16", "x"),
        ("Vec<u16>", (1, 70000)),
        ("AccountId32", b"short"),
        ("bool", ...),
        ("BoundedVec<u8, 2>", b"abc"),
        ("TestShape", "Triangle"),
        ("(u8, u8)", (1,)),
        ("Compact<u8>", 300),
        ("Vec<u8>", 5),
    ],
)
def test_values_of_the_wrong_kind_are_refused(type_, value):
    if value is ...:
        value, type_ = object(), "u8"
    with pytest.raises(ScaleError):
        CODECS(type_).encode(value)


@pytest.mark.parametrize(
    "type_, data",
    [
        ("u64", "01"),
        ("bool", "02"),
        ("Option<u8>", "0201"),
        ("Vec<u16>", "0c0100"),
        ("Vec<u8>", "fe"),
        ("Vec<AccountId32>", "feffffff" + "00" * 40),
        ("TestShape", "01"),
        ("TestShape", ""),
        ("[u8; 4]", "000000"),
        ("u8", "0101"),
        ("BoundedVec<u16, 1>", "08 0100 0200"),
        ("String", "08ffff"),
        ("Compact<u8>", "fdff"),
        ("Vec<()>", "fe ff ff ff"),
        ("BTreeMap<u8, u8>", "0c0102"),
        ("Compact<u128>", "ff" + "00" * 3),
    ],
)
def test_truncated_oversized_and_foreign_bytes_are_refused(type_, data):
    with pytest.raises(ScaleError):
        CODECS(type_).decode(bytes.fromhex(data))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([*SHARED, "TestShape", "TestPair", "MultiAddress", "Vec<TestShape>"]), st.binary(max_size=60))
def test_a_decoder_raises_scale_error_or_gives_a_value_that_encodes(type_, data):
    codec = CODECS(type_)
    try:
        value = codec.decode(data)
    except ScaleError:
        return
    assert codec.decode(codec.encode(value)) == value


def test_encoded_values_pass_through():
    assert CODECS("u64").encode(Encoded(b"\1")) == b"\1"


@pytest.mark.parametrize("text", ["Vec<u8", "Vec<u8>>", "[u8]", "[u8; x]", "", "<u8>", "Vec<u8> ?"])
def test_type_strings_that_cannot_be_read_are_named(text):
    with pytest.raises(ValueError, match="type"):
        CODECS(text)


def test_undeclared_types_are_named():
    with pytest.raises(ValueError, match="Nonesuch"):
        CODECS("Vec<Nonesuch>")
