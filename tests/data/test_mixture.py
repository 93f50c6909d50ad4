"""Batches of prepared folders: exact shuffles, weights, positions, ranks; the thread that reads ahead."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter

import numpy as np
import pytest

from raytensor.config import Data
from raytensor.config.train import TrainConfig, Training
from raytensor.data import mixture, shards
from raytensor.data.mixture import Mixture, Permutation
from raytensor.data.text import prepare
from raytensor.data.tokenizer import ByteTokenizer
from raytensor.errors import DataError
from raytensor.training import batches
from raytensor.training.ranks import Ranks

LENGTH, ROWS = 8, 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of bytes: letters (a-y) in three shards, digits in one; every sequence differs from the others."""
    root = tmp_path_factory.mktemp("folders")
    for name, low, high, sizes in (("letters", 97, 122, (900, 1500, 5)), ("digits", 48, 58, (2500,))):
        (root / name).mkdir()
        draw = np.random.default_rng(len(name))
        records = {"train": [], "heldout": []}
        for part, found in records.items():
            for number, size in enumerate(sizes):
                ids = [np.append(draw.integers(low, high, length), 0) for length in np.full(size // 50 + 1, 49)]
                file = f"{part}-00000-{number:05d}.tokens"
                found.append(shards.write(root / name, file, ids, sum(one.size for one in ids), 256))
        about = (ByteTokenizer().digest(), 256, 0, {"source": name})
        shards.Manifest(*about, tuple(records["train"]), tuple(records["heldout"])).save(root / name)
        (root / name / "tokenizer").mkdir()
        ByteTokenizer().save(root / name / "tokenizer")
    return root


def settings(folders, *names: str, weights: list[float] | None = None) -> Data:
    return Data(prepared=[str(folders / name) for name in names], tokenizer="bytes", weights=weights or [])


def stream(cfg: Data, seed: int = 1) -> Mixture:
    return Mixture(cfg, ByteTokenizer().digest(), seq_len=LENGTH, batch_size=ROWS, seed=seed)


def whole(found: Mixture, count: int) -> list[np.ndarray]:
    return [found.batch(np.arange(ROWS)) for _ in range(count)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 65_537])
def test_a_permutation_sends_every_number_to_another_place(size):
    found = [Permutation(size, seed)(np.arange(size)) for seed in (0, 1)]
    for one in found:
        np.testing.assert_array_equal(np.sort(one), np.arange(size))
    if size >= 1000:
        assert (found[0] != found[1]).mean() > 0.9 and (found[0] != np.arange(size)).mean() > 0.9
        assert abs(np.corrcoef(found[0], np.arange(size))[0, 1]) < 0.1


def test_a_permutation_of_a_trillion_costs_nothing():
    places = Permutation(10**12, 7)(np.array([0, 1, 10**12 - 1]))
    assert len(set(places.tolist())) == 3 and places.min() >= 0 and places.max() < 10**12


def test_each_pass_gives_every_sequence_once_in_a_new_order(folders):
    cfg = settings(folders, "letters")
    split = shards.Split(folders / "letters", shards.read_manifest(folders / "letters"), "train")
    expected = Counter()
    for shard, record in enumerate(split.records):
        tokens = split.tokens(shard, 0, record.num_tokens).astype(np.int32)
        for start in range(0, record.num_tokens - LENGTH, LENGTH):
            expected[tokens[start : start + LENGTH + 1].tobytes()] += 1
    total = sum(expected.values())
    found = stream(cfg)
    rows = [row.tobytes() for batch in whole(found, -(-2 * total // ROWS)) for row in batch]
    assert Counter(rows[:total]) == expected == Counter(rows[total : 2 * total])
    assert rows[:total] != rows[total : 2 * total] and found.epoch == 2
    assert whole(stream(cfg, 2), 1)[0].tobytes() != whole(stream(cfg, 1), 1)[0].tobytes()


def test_weights_are_the_shares_of_the_sequences(folders):
    found = np.concatenate(whole(stream(settings(folders, "letters", "digits", weights=[3.0, 1.0])), 100))
    digits = [int(((row >= 48) & (row < 58)).any()) for row in found]
    assert abs(sum(digits) - 150) <= 2
    assert all(abs(sum(digits[:at]) - at / 4) <= 3 for at in range(len(digits)))
    sizes = np.concatenate(whole(stream(settings(folders, "letters", "digits")), 100))
    share = ((sizes >= 48) & (sizes < 58)).any(axis=1).mean()
    manifests = [shards.read_manifest(folders / name) for name in ("letters", "digits")]
    counts = [sum((record.num_tokens - 1) // LENGTH for record in one.train) for one in manifests]
    assert share == pytest.approx(counts[1] / sum(counts), abs=0.02)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_batches_do_not_depend_on_the_number_of_ranks_and_a_rank_reads_only_its_own(folders, size):
    cfg = settings(folders, "letters", "digits", weights=[0.4, 0.6])
    expected = whole(stream(cfg), 30)
    parts = [stream(cfg) for _ in range(size)]
    for batch in expected:
        rows = [one.batch(Ranks(rank, size).mine(np.arange(ROWS))) for rank, one in enumerate(parts)]
        np.testing.assert_array_equal(np.concatenate(rows), batch)
    assert all(one.state() == parts[0].state() for one in parts)


def test_any_number_of_resumes_equals_one_stream(folders):
    cfg = settings(folders, "letters", "digits")
    expected, again, at = whole(stream(cfg), 120), stream(cfg), 0
    for count in (3, 1, 0, 40, 1, 1, 30, 0, 44):
        state = json.loads(json.dumps(again.state()))
        again = stream(cfg)
        again.restore(state)
        for _ in range(count):
            np.testing.assert_array_equal(again.batch(np.arange(ROWS)), expected[at])
            at += 1
    with pytest.raises(DataError, match="another corpus"):
        stream(settings(folders, "digits")).restore(state)


def test_what_does_not_fit_is_refused_with_the_folder(folders):
    with pytest.raises(DataError, match=r"digits: no shard has the 5001 tokens.*fix: a smaller seq_len"):
        Mixture(settings(folders, "digits"), ByteTokenizer().digest(), seq_len=5000, batch_size=1, seed=0)
    with pytest.raises(
        DataError, match=r"letters.manifest\.json: its tokens are of the tokenizer .*fix: leave out data"
    ):
        Mixture(settings(folders, "letters"), "another", seq_len=LENGTH, batch_size=1, seed=0)


def test_the_thread_reads_ahead_and_the_position_is_that_of_what_was_taken(folders):
    cfg = TrainConfig(data=settings(folders, "letters"), training=Training(seq_len=LENGTH, batch_size=ROWS))
    plain = Mixture(cfg.data, ByteTokenizer().digest(), seq_len=LENGTH, batch_size=ROWS, seed=cfg.seed)
    with batches.of(cfg, ByteTokenizer(), Ranks()) as found:
        for _ in range(20):
            assert found.state() == plain.state()
            batch = found.batch()
            np.testing.assert_array_equal(batch, plain.batch(np.arange(ROWS)))
            assert batch.dtype == np.int64
        state = found.state()
        expected = found.batch()
    with batches.of(cfg, ByteTokenizer(), Ranks()) as again:
        again.restore(state)
        np.testing.assert_array_equal(again.batch(), expected)


def test_an_error_of_the_thread_reaches_the_training(folders, tmp_path):
    import shutil

    shutil.copytree(folders / "digits", tmp_path / "digits")
    path = tmp_path / "digits" / "train-00000-00000.tokens"
    cfg = TrainConfig(data=settings(tmp_path, "digits"), training=Training(seq_len=LENGTH, batch_size=ROWS))
    with batches.of(cfg, ByteTokenizer(), Ranks()) as found:
        data = bytearray(path.read_bytes())
        data[9] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{path}: bytes changed"):
            for _ in range(100):
                found.batch()


def test_the_text_of_a_market_is_that_of_the_folders(folders, tmp_path):
    text = prepare(settings(folders, "letters", "digits"), tmp_path)
    letters, digits = (shards.read_manifest(folders / name) for name in ("letters", "digits"))
    assert text.train.size == sum(r.num_tokens for r in (*letters.train, *digits.train)) == text.train_offsets[-1]
    assert text.bytes_per_token == 1.0 and not list(tmp_path.iterdir())
    assert (text.train[text.train_offsets[1:] - 1] == 0).all() and text.train.dtype == np.uint16
    even = prepare(settings(folders, "letters", "digits", weights=[0.2, 0.6]), tmp_path)
    assert ((even.train >= 48) & (even.train < 58)).sum() == pytest.approx(3 * (even.train >= 97).sum(), rel=0.1)
    assert even.train.size < text.train.size


def test_held_out_documents_come_from_all_folders(folders):
    cfg = settings(folders, "letters", "digits")
    found = list(mixture.heldout_documents(cfg, ByteTokenizer().digest(), 120))
    assert [one.size for one in found] == [50] * 6 and found[0][0] >= 97 and found[-1][0] < 58


def test_opening_reads_the_manifest_only_and_a_start_refuses_what_is_missing(folders, tmp_path):
    """Ranks open a folder without a look at its shards; the job that starts them has looked at all."""
    shutil.copytree(folders / "letters", tmp_path / "letters")
    cfg = Data(prepared=[str(tmp_path / "letters")], tokenizer="bytes")
    for path in (tmp_path / "letters").glob("*.tokens"):
        path.unlink()
    found = stream(cfg)
    with pytest.raises(DataError, match=r"letters/train-00000-0000\d.tokens: No such file.*; fix: "):
        found.batch(np.arange(ROWS))
    with pytest.raises(DataError, match=r"train-00000-00000.tokens: No such file"):
        mixture.refuse_unusable(cfg)


def test_a_folder_of_format_1_is_read(tmp_path, monkeypatch):
    """It has a hash of every 64 KiB, and its manifest does not say so."""
    documents = [np.append(np.random.default_rng(0).integers(1, 200, 70_000), 0) for _ in range(2)]
    with monkeypatch.context() as old:
        old.setattr(shards, "CHUNK", shards.CHUNK_OF_1)
        record = shards.write(tmp_path, "train-00000-00000.tokens", documents, 140_000, 256)
    content = {"tokenizer": ByteTokenizer().digest(), "vocab_size": 256, "end": 0, "source": {}, "heldout": []}
    content |= {"train": [dataclasses.asdict(record)]}
    whole_manifest = {"format": 1, **content, "hash": shards.digest_of(content)}
    (tmp_path / shards.MANIFEST).write_text(json.dumps(whole_manifest))
    split = shards.Split(tmp_path, shards.read_manifest(tmp_path), "train")
    np.testing.assert_array_equal(split.tokens(0, 60_000, 80_000), np.concatenate(documents)[60_000:80_000])
    data = bytearray((tmp_path / record.name).read_bytes())
    data[200_000] ^= 1
    (tmp_path / record.name).write_bytes(data)
    with pytest.raises(DataError, match="bytes changed near 196,608"):
        shards.Split(tmp_path, shards.read_manifest(tmp_path), "train").tokens(0, 0, 140_002)


@pytest.mark.parametrize("ranks", [1, 3])
def test_places_drawn_ahead_are_those_of_each_pass(folders, monkeypatch, ranks):
    """Across the ends of passes and of what is drawn at once, whichever rows a rank reads."""
    cfg = settings(folders, "letters", "digits")
    expected = []
    for ahead in (1, 5, mixture.DRAWN):
        monkeypatch.setattr(mixture, "DRAWN", ahead)
        parts = [stream(cfg) for _ in range(ranks)]
        found = [
            np.concatenate([one.batch(rows) for one, rows in zip(parts, np.split(np.arange(ROWS), ranks), strict=True)])
            for _ in range(200)
        ]
        expected.append(np.stack(found))
    np.testing.assert_array_equal(expected[0], expected[1])
    np.testing.assert_array_equal(expected[0], expected[2])
