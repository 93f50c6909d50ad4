"""Tokenized text: nothing lost, nothing shared, cached, rebuilt when the cache is damaged."""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np
import pytest

from raytensor.config import Data
from raytensor.data import corpus, tokenizer
from raytensor.data.text import Text, prepare, unigram
from raytensor.errors import DataError


def equal(a: Text, b: Text) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Text))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that no other test fills."""
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def text(cache):
    return prepare(Data(), cache)


def coder(cfg: Data, cache) -> tokenizer.Tokenizer:
    return tokenizer.load(
        cfg.tokenizer, cfg.vocab_size, corpus.fingerprint(cfg), lambda: pytest.fail("must be cached"), cache
    )


def test_every_document_comes_back_from_its_tokens(text, cache):
    found = coder(Data(), cache)
    for tokens, offsets, heldout in (
        (text.train, text.train_offsets, False),
        (text.heldout, text.heldout_offsets, True),
    ):
        documents = list(corpus.documents(Data(), heldout=heldout))
        assert len(offsets) == len(documents) + 1 and offsets[-1] == len(tokens)
        for i in (0, 7, len(documents) - 1):
            piece = tokens[offsets[i] : offsets[i + 1]]
            assert piece[-1] == tokenizer.END and (piece[:-1] != tokenizer.END).all()
            assert found.decode(piece) == documents[i]


def test_what_the_parts_hold(text):
    assert text.train.dtype == text.heldout.dtype == np.uint16
    assert max(text.train.max(), text.heldout.max()) < text.vocab_size == 1024
    assert 2.0 < text.bytes_per_token < 3.5
    assert 0.05 < text.heldout.size / (text.train.size + text.heldout.size) < 0.2


def test_the_frequency_table(text):
    assert text.log_unigram.shape == (1024,) and text.log_unigram.dtype == np.float32
    assert np.exp(text.log_unigram.astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-5)
    token = int(text.train[12345])
    count = int((text.train == token).sum())
    assert text.log_unigram[token] == pytest.approx(np.log((count + 1) / (text.train.size + 1024)), abs=1e-6)
    np.testing.assert_allclose(np.exp(unigram(np.array([1, 1, 3]), 4)), [1 / 7, 3 / 7, 1 / 7, 2 / 7], rtol=1e-6)


def test_the_second_start_reads_the_cache(text, cache):
    said: list[str] = []
    started = time.monotonic()
    again = prepare(Data(), cache, said.append)
    assert time.monotonic() - started < 1.0
    assert equal(text, again) and len(said) == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path, text, cache, damage):
    name = next(cache.glob("text-*.npz")).name
    token_file = next(cache.glob("tokenizer-*.json"))
    raw = bytearray((cache / name).read_bytes())
    if damage == "truncate":
        raw = raw[: len(raw) // 2]
    elif damage == "flip":
        raw[len(raw) // 2] ^= 0xFF
    else:
        raw = bytearray()
    (tmp_path / name).write_bytes(raw)
    # The tokenizer's file as well: cut in the middle, then still JSON-like but another one.
    body = token_file.read_text()
    (tmp_path / token_file.name).write_text(
        body[: len(body) // 2] if damage == "truncate" else body.replace("the", "teh")
    )
    assert equal(prepare(Data(), tmp_path), text)
    assert (tmp_path / token_file.name).read_text() == body
    assert [path.name for path in tmp_path.iterdir() if path.name not in (name, token_file.name)] == []


def test_bytes(tmp_path):
    words = [f"Line {i}: naïve café number {i}" for i in range(1000)]
    (tmp_path / "a.txt").write_text("\n\n".join(words))
    text = prepare(Data(source="text", files=str(tmp_path), tokenizer="bytes"), tmp_path / "cache")
    assert text.vocab_size == 256 and not list((tmp_path / "cache").glob("tokenizer*"))
    raw = bytes(text.train[: text.train_offsets[1] - 1].astype(np.uint8)).decode()
    assert raw.strip() in words
    assert tokenizer.ByteTokenizer().encode(["a\0b"])[0].tolist() == [97, 98]


def test_a_document_that_holds_the_end_marker_does_not_end_there(cache, text):
    found = coder(Data(), cache)
    sample = f"before {tokenizer.END_TEXT} after"
    ids = found.encode([sample])[0]
    assert (ids != tokenizer.END).all() and found.decode(ids) == sample


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"short {i}" for i in range(30)))
    with pytest.raises(DataError, match="at least 2048 are needed"):
        prepare(Data(source="text", files=str(tmp_path), tokenizer="bytes"), tmp_path / "cache")
