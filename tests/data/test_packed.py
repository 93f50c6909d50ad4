"""Packed batches: documents of the training part in order, no held-out token, exact resume in another process."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from raytensor.config import Data
from raytensor.data import corpus
from raytensor.data.packed import PackedStream
from raytensor.data.tokenizer import ByteTokenizer
from raytensor.errors import DataError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three sources of 300 documents in two files each; the held-out ones are told by an X."""
    folder = tmp_path_factory.mktemp("texts")
    texts = [f"document {i} " + chr(97 + i % 26) * (i % 40) for i in range(300)]
    texts = [text + (" X" if corpus.is_heldout(text + " X", 0.2) else " o") for text in texts]
    kept = [text for text in texts if text.endswith("X") == corpus.is_heldout(text, 0.2)]
    for part in (0, 1):
        mine = kept[part::2]
        (folder / f"{part}.txt").write_text("\n\n".join(mine))
        (folder / f"{part}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in mine))
        import pandas

        pandas.DataFrame({"text": mine}).to_parquet(folder / f"{part}.parquet")
    return folder


def stream(cfg: Data) -> PackedStream:
    return PackedStream(cfg, ByteTokenizer(), seq_len=31, batch_size=4)


def settings(files, source: str) -> Data:
    return Data(
        source=source,
        files=str(files / f"*.{ {'text': 'txt', 'json': 'jsonl', 'parquet': 'parquet'}[source] }"),
        heldout_share=0.2,
        tokenizer="bytes",
    )


@pytest.mark.parametrize("source", ["text", "json", "parquet"])
def test_the_stream_is_the_train_part_and_goes_on_exactly(files, source):
    cfg = settings(files, source)
    whole = stream(cfg)
    batches = [whole.batch() for _ in range(140)]  # more than one time through the source
    assert batches[0].shape == (4, 32) and batches[0].dtype == np.int32 and whole.epoch >= 1
    said = bytes(np.concatenate([batch.ravel() for batch in batches]).astype(np.uint8)).split(b"\0")
    trained = [text.strip().encode() for text in corpus.documents(cfg, heldout=False)]
    assert [text.strip() for text in said[: len(trained)]] == trained and said[len(trained)].strip() == trained[0]
    assert not any(b"X" in text for text in said)
    for at in (0, 1, 7, 90):
        first = stream(cfg)
        for _ in range(at):
            first.batch()
        state = json.loads(json.dumps(first.state()))
        again = stream(cfg)
        again.restore(state)
        for batch in batches[at : at + 12]:
            np.testing.assert_array_equal(again.batch(), batch)


@pytest.mark.parametrize("source, limit", [("text", None), ("json", None), ("parquet", None), ("json", 200)])
def test_any_number_of_resumes_equals_one_stream(files, source, limit):
    """Also where a stream is saved again before its source has moved: one batch, or none, after it was restored."""
    cfg = settings(files, source)
    cfg.max_documents = limit
    whole = stream(cfg)
    expected = [whole.batch() for _ in range(120)]
    again, at = stream(cfg), 0
    for count in (3, 1, 1, 0, 0, 1, 2, 1, 1, 1, 0, 17, 1, 1, 40, 1, 0, 1, 1, 30, 1, 1):
        state = json.loads(json.dumps(again.state()))
        again = stream(cfg)
        again.restore(state)
        for _ in range(count):
            np.testing.assert_array_equal(again.batch(), expected[at])
            at += 1
    assert again.epoch >= 1


def test_the_embedded_corpus_goes_on_in_another_process(tmp_path):
    cfg = Data(max_documents=300, tokenizer="bytes")
    first = stream(cfg)
    for _ in range(30):
        first.batch()
    (tmp_path / "state.json").write_text(json.dumps(first.state()))
    script = (
        "import json, sys; from raytensor.config import Data; from raytensor.data.packed import PackedStream\n"
        "from raytensor.data.tokenizer import ByteTokenizer\n"
        "found = PackedStream(Data(max_documents=300, tokenizer='bytes'), ByteTokenizer(), seq_len=31, batch_size=4)\n"
        "found.restore(json.load(open(sys.argv[1]))); print(json.dumps([found.batch().tolist() for _ in range(20)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "state.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [first.batch().tolist() for _ in range(20)]


def test_a_position_of_another_corpus_is_refused(files):
    state = stream(settings(files, "json")).state()
    with pytest.raises(DataError, match="another corpus"):
        stream(settings(files, "parquet")).restore(state)
