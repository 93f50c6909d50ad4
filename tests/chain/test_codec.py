"""SCALE by a small registry: exact bytes, both ways, and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raytensor.chain import ss58
from raytensor.chain.calls import Call
from raytensor.chain.rpc.codec import Codec, decode_compact, encode_compact

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_HEX = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"


def field(type_id, name=None):
    return {"name": name, "type": type_id}


def variant(index, name, *fields):
    return {"index": index, "name": name, "fields": list(fields)}


TYPES = {
    0: ([], {"primitive": "U8"}),
    1: ([], {"primitive": "u16"}),
    2: ([], {"primitive": "u64"}),
    3: (["NetUid"], {"composite": {"fields": [field(1)]}}),
    4: ([], {"sequence": {"type": 3}}),
    5: ([], {"compact": {"type": 3}}),
    6: ([], {"array": {"len": 4, "type": 0}}),
    7: (["sp_core", "crypto", "AccountId32"], {"composite": {"fields": [field(8)]}}),
    8: ([], {"array": {"len": 32, "type": 0}}),
    9: (["Option"], {"variant": {"variants": [variant(0, "None"), variant(1, "Some", field(2))]}}),
    10: (["Axon"], {"composite": {"fields": [field(2, "block"), field(1, "port")]}}),
    11: (["MultiAddress"], {"variant": {"variants": [variant(0, "Id", field(7)), variant(2, "Raw", field(12))]}}),
    12: ([], {"sequence": {"type": 0}}),
    13: ([], {"tuple": [1, 9]}),
    14: ([], {"primitive": "bool"}),
    15: ([], {"sequence": {"type": 14}}),
    16: ([], {"primitive": "i128"}),
    17: (
        ["Runtime", "RuntimeCall"],
        {"variant": {"variants": [variant(5, "Balances", field(18)), variant(11, "Utility", field(19))]}},
    ),
    18: (["bal", "Call"], {"variant": {"variants": [variant(3, "pay", field(11, "dest"), field(5, "value"))]}}),
    19: (["util", "Call"], {"variant": {"variants": [variant(2, "batch_all", field(20, "calls"))]}}),
    20: ([], {"sequence": {"type": 17}}),
    21: ([], {"primitive": "str"}),
    22: ([], {"tuple": []}),
    23: ([], {"sequence": {"type": 2}}),
}
CODEC = Codec({id: {"path": path, "def": definition} for id, (path, definition) in TYPES.items()})
PAY = Call("Balances", "pay", {"dest": ALICE, "value": 300})


@pytest.mark.parametrize(
    "type_id, value, data",
    [
        (2, 2**64 - 1, "ffffffffffffffff"),
        (3, 258, "0201"),
        (4, [1, 65535], "080100ffff"),
        (5, 63, "fc"),
        (5, 64, "0101"),
        (6, "0x01020304", "01020304"),
        (7, ALICE, ALICE_HEX),
        (9, None, "00"),
        (9, 5, "010500000000000000"),
        (10, {"block": 1, "port": 80}, "01000000000000005000"),
        (11, {"Id": ALICE}, "00" + ALICE_HEX),
        (11, {"Raw": b"hi"}, "02086869"),
        (12, b"abc", "0c616263"),
        (13, (7, None), "070000"),
        (16, -2, "fe" + "ff" * 15),
        (21, "grün", "146772c3bc6e"),
        (22, (), ""),
        (17, {"Balances": {"pay": {"dest": {"Id": ALICE}, "value": 300}}}, "050300" + ALICE_HEX + "b104"),
    ],
)
def test_values_and_their_bytes(type_id, value, data):
    assert CODEC.encode(type_id, value).hex() == data
    assert CODEC.decode(type_id, bytes.fromhex(data)) == value


def test_calls_and_addresses_are_taken_as_they_are_written():
    one = "0300" + ALICE_HEX + "b104"
    assert CODEC.encode(17, PAY).hex() == "05" + one
    batch = Call("Utility", "batch_all", {"calls": [PAY, PAY]})
    assert CODEC.encode(17, batch).hex() == "0b0208" + ("05" + one) * 2
    assert CODEC.encode(6, b"\1\2\3\4") == CODEC.encode(6, [1, 2, 3, 4])


@pytest.mark.parametrize(
    "type_id, value",
    [
        (1, 65536),
        (1, -1),
        (1, "7"),
        (6, b"\1\2\3"),
        (7, "5Grw"),
        (7, "0x" + ALICE_HEX),
        (7, bytes.fromhex(ALICE_HEX)),
        (7, ALICE[:-1] + "Z"),
        (10, {"block": 1}),
        (10, {"block": 1, "port": 2, "ip": 3}),
        (11, {"Index": 1}),
        (13, (1,)),
        (12, "text"),
        (5, -1),
        (17, Call("Balances", "steal", {})),
        (17, Call("Nothing", "pay", {})),
    ],
)
def test_values_that_do_not_fit_are_refused(type_id, value):
    with pytest.raises(ValueError):
        CODEC.encode(type_id, value)


@pytest.mark.parametrize(
    "type_id, data",
    [(2, "00"), (4, "08"), (4, "0801"), (1, "010203"), (9, "01"), (11, "07"), (12, "fc00"), (4, "feffffff"), (1, "")],
)
def test_bytes_that_are_no_such_value_are_refused(type_id, data):
    with pytest.raises(ValueError):
        CODEC.decode(type_id, bytes.fromhex(data))


def test_vectors_of_numbers_become_arrays():
    found = CODEC.array(4, bytes.fromhex("080100ffff"))
    assert found.dtype == np.uint16 and found.tolist() == [1, 65535]
    assert CODEC.array(15, b"\x08\x01\x00").tolist() == [True, False]
    assert CODEC.array(23, b"\x04" + (2**63).to_bytes(8, "little")).tolist() == [2**63]
    assert CODEC.array(4, b"\0").tolist() == []
    with pytest.raises(ValueError, match="2 elements"):
        CODEC.array(4, bytes.fromhex("080100"))


@pytest.mark.parametrize(
    "address, cause",
    [
        ("0x" + ALICE_HEX, "hexadecimal"),
        ("0x" + ALICE_HEX[:-2], "hexadecimal"),
        ("0x" + ALICE_HEX + "07", "hexadecimal"),
        ("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5", "prefix 42, not 0"),
        (ALICE[:-1] + "Z", "checksum"),
        (ALICE[:-2], "46 to 48 letters|checksum|35 bytes|prefix"),
        (ALICE.replace("G", "0"), "base58"),
        ("", "46 to 48 letters"),
    ],
)
def test_what_is_no_address_is_refused_with_the_cause(address, cause):
    with pytest.raises(ValueError, match=cause):
        ss58.decode(address)


def test_addresses():
    assert ss58.decode(ALICE).hex() == ALICE_HEX
    assert ss58.encode(bytes.fromhex(ALICE_HEX)) == ALICE


@given(st.integers(0, 2**536 - 1))
def test_compact_integers_come_back(value):
    raw = encode_compact(value)
    assert decode_compact(raw, 0) == (value, len(raw))


@pytest.mark.parametrize(
    "value, data", [(0, "00"), (1, "04"), (16383, "fdff"), (16384, "02000100"), (2**30, "0300000040")]
)
def test_compact_integers_known(value, data):
    assert encode_compact(value).hex() == data
