"""Typed storage against a plain model: rollback, history, prefixes, raw keys."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raytensor.devnet.hashing import blake2_128, twox_64, twox_128
from raytensor.devnet.scale import Codecs, ScaleError
from raytensor.devnet.store import ABSENT, StorageMap, StorageValue, Store

ACCOUNT = ("Blake2_128Concat", "AccountId32")
U16 = ("Identity", "u16")


def fresh(history: int = 4096):
    store = Store(Codecs(), history_blocks=history, check=True)
    return (
        store,
        store.add("Pal", "Total", StorageValue("u64")),
        store.add("Pal", "Keys", StorageMap([U16, U16], "u32", default=9)),
        store.add("Pal", "Names", StorageMap([ACCOUNT], "Vec<u8>", optional=True)),
    )


def test_defaults_and_presence():
    _, total, keys, names = fresh()
    assert (total.get(), total.exists(), keys[1, 2], names[bytes(32)]) == (0, False, 9, None)
    assert (1, 2) not in keys and keys.get((1, 2)) is None
    total.set(5)
    keys[1, 2] = 3
    assert total.exists() and (1, 2) in keys and keys[1, 2] == 3
    total.kill()
    del keys[1, 2]
    del keys[7, 7]  # absent: nothing happens
    assert (total.get(), keys[1, 2], len(keys)) == (0, 9, 0)


def test_prefixes_iterate_in_key_order_and_clear():
    _, _, keys, _ = fresh()
    for pair in ((2, 1), (1, 300), (1, 2), (1, 1)):
        keys[pair] = pair[1]
    assert list(keys.keys(1)) == [1, 2, 300]
    assert list(keys.items(1)) == [(1, 1), (2, 2), (300, 300)]
    assert list(keys.keys()) == [(1, 1), (1, 2), (1, 300), (2, 1)]
    assert keys.clear(1) == 3 and list(keys.keys()) == [(2, 1)]
    assert list(keys.items(5)) == []


def test_three_part_keys():
    store = Store(Codecs())
    item = store.add("Pal", "Alpha", StorageMap([U16, U16, U16], "u8"))
    item[1, 2, 3], item[1, 2, 4], item[1, 5, 6] = 1, 2, 3
    assert list(item.items(1)) == [((2, 3), 1), ((2, 4), 2), ((5, 6), 3)]
    assert list(item.items(1, 2)) == [(3, 1), (4, 2)]
    assert item.clear(1, 2) == 2 and list(item.keys()) == [(1, 5, 6)]


def test_rollback_undoes_exactly_what_came_after_the_mark():
    store, total, keys, names = fresh()
    total.set(1)
    keys[1, 1] = 1
    outer = store.mark()
    keys[1, 1] = 2
    keys[1, 2] = 3
    inner = store.mark()
    del keys[1, 1]
    names[bytes(32)] = b"x"
    total.kill()
    store.rollback(inner)
    assert (total.get(), keys[1, 1], keys[1, 2], names[bytes(32)]) == (1, 2, 3, None)
    store.rollback(outer)
    assert (total.get(), dict(keys.items(1))) == (1, {1: 1})


OPS = st.lists(
    st.tuples(st.sampled_from(["set", "del", "commit", "mark", "rollback"]), st.integers(0, 3), st.integers(0, 99)),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(OPS)
def test_history_is_that_of_a_model_that_copies_everything(ops):
    store, _, keys, _ = fresh()
    model: dict = {}
    past: list[dict] = []
    marks: list[tuple[int, dict]] = []
    for kind, k, v in ops:
        key = (k % 2, k)
        if kind == "set":
            keys[key] = model[key] = v
        elif kind == "del":
            del keys[key]
            model.pop(key, None)
        elif kind == "mark":
            marks.append((store.mark(), copy.copy(model)))
        elif kind == "rollback" and marks:
            mark, model = marks.pop()
            store.rollback(mark)
        elif kind == "commit":
            store.commit(len(past))
            past.append(copy.copy(model))
            marks.clear()
    assert dict(keys.items()) == model
    for group in (0, 1):
        assert list(keys.keys(group)) == sorted(k for g, k in model if g == group)
    store.commit(len(past))
    past.append(copy.copy(model))
    for block, state in enumerate(past):
        for k in range(4):
            key = (k % 2, k)
            assert keys.at(key, block) == state.get(key, ABSENT)
        raw = store.raw_keys(keys.prefix, None, None, block)
        assert raw == sorted(keys.raw_key(key) for key in state)
        with store.as_of(block):
            assert dict(keys.items()) == state
        assert dict(keys.items()) == model


def test_history_is_bounded():
    store, total, keys, _ = fresh(history=16)
    for block in range(100):
        total.set(block)
        keys[0, block] = block
        del keys[0, block - 1]
        store.commit(block)
    assert store.oldest_block == 100 - 16 - 1
    assert [total.at((), block) for block in range(store.oldest_block, 100)] == list(range(store.oldest_block, 100))
    assert len(total.history[()]) == 16 and len(keys.history) <= 33


def test_raw_keys_are_subtrates():
    store, total, keys, names = fresh()
    prefix = twox_128(b"Pal")
    assert total.raw_key(()) == prefix + twox_128(b"Total")
    assert keys.raw_key((1, 258)) == prefix + twox_128(b"Keys") + b"\1\0" + b"\2\1"
    who = bytes(range(32))
    assert names.raw_key(who) == prefix + twox_128(b"Names") + blake2_128(who) + who
    # the prefix that every Substrate client knows, and XXH64 of nothing (0xef46db3751d8e999), little endian
    assert twox_128(b"System").hex() == "26aa394eea5630e07c48ae0c9558cef7"
    assert twox_64(b"") == bytes.fromhex("99e9d85137db46ef")
    names[who] = b"abc"
    assert names.typed_key(names.raw_key(who)) == who
    assert store.read_raw(names.raw_key(who)) == b"\x0cabc"
    forged = bytearray(names.raw_key(who))
    forged[33] ^= 1
    assert store.read_raw(bytes(forged)) is None
    assert store.read_raw(names.raw_key(who) + b"\0") is None
    assert store.read_raw(b"nonsense") is None


def test_paging_gives_every_key_once():
    store, total, keys, names = fresh()
    total.set(1)
    for i in range(25):
        names[bytes([i]) * 32] = b"n"
        keys[i % 3, i] = i
    everything = store.raw_keys(b"", None, None)
    assert len(everything) == 51 and everything == sorted(everything)
    paged, start = [], names.prefix
    while page := store.raw_keys(names.prefix, start, 4):
        paged += page
        start = page[-1]
    assert paged == store.raw_keys(names.prefix, None, None) and len(paged) == 25
    names[b"\xff" * 32] = b"late"
    assert len(store.raw_keys(names.prefix, None, None)) == 26
    assert len(store.raw_keys(keys.prefix + b"\1\0", None, None)) == 8


def test_write_raw_and_load():
    store, total, keys, names = fresh()
    store.write_raw(total.raw_key(()), b"\5" + bytes(7))
    assert total.get() == 5
    with pytest.raises(ScaleError):
        store.write_raw(total.raw_key(()), b"\5")
    with pytest.raises(ScaleError):
        store.write_raw(b"x" * 40, b"")
    keys[1, 2] = 3
    store.commit(1)
    entries = [(raw, store.read_raw(raw)) for raw in store.raw_keys(b"", None, None)]
    other, other_total, other_keys, _ = fresh()
    other_keys[9, 9] = 1
    other.load(7, entries)
    assert (other_total.get(), dict(other_keys.items()), other.oldest_block) == (5, {(1, 2): 3}, 7)
    assert list(other_keys.keys(1)) == [2] and other.mark() == 0


def test_numpy_defaults_come_back_as_read_only_arrays():
    store = Store(Codecs(), check=True)
    item = store.add("Pal", "Row", StorageMap([U16], "Vec<u16>", default=np.zeros(0, "u2")))
    item[1] = np.array([1, 2, 3], "u2")
    restored = item.decode_value(store.read_raw(item.raw_key(1)))
    assert restored.dtype == np.uint16 and restored.tolist() == [1, 2, 3] and not restored.flags.writeable


def test_a_checking_store_refuses_a_value_where_it_is_written():
    _, total, keys, _ = fresh()
    with pytest.raises(ScaleError):
        total.set(-1)
    with pytest.raises(ScaleError):
        keys[1, 70000] = 1
