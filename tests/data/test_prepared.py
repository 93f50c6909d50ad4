"""Prepared folders: what they hold, going on after a kill, and refusals that name the file and the fix."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from raytensor.cli import main
from raytensor.config import Data
from raytensor.data import corpus, prepare, shards
from raytensor.data.pretrained import load
from raytensor.data.text import load_tokenizer
from raytensor.errors import ConfigError, DataError

TEXTS = [f"document {i} " + chr(97 + i % 26) * (i % 90) + f" é{i}" for i in range(900)]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """900 documents in three files of JSON lines."""
    folder = tmp_path_factory.mktemp("texts")
    for part in range(3):
        lines = [json.dumps({"text": text}) + "\n" for text in TEXTS[part::3]]
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return Data(source="json", files=str(folder), heldout_share=0.2, tokenizer="bpe", vocab_size=400)


@pytest.fixture(scope="module")
def prepared(ray_session, texts, tmp_path_factory):
    """(the prepared folder, its manifest)."""
    root = tmp_path_factory.mktemp("prepared")
    lines: list[str] = []
    folder = root / "mine"
    manifest = prepare.prepare(texts, folder, str(root / "cache"), block_bytes=8000, say=lines.append)
    assert f"{sum(r.num_tokens for r in (*manifest.train, *manifest.heldout)):,} tokens" in lines[-1]
    return folder, manifest


@pytest.fixture
def copy(prepared, tmp_path):
    """A copy of the folder, to damage."""
    shutil.copytree(prepared[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_folder_holds_the_documents_of_both_parts_in_order(prepared, texts):
    folder, manifest = prepared
    coder = load(str(folder / shards.TOKENIZER))
    assert coder.digest() == manifest.tokenizer and len(manifest.train) > 3
    for part, heldout in (("train", False), ("heldout", True)):
        split = shards.Split(folder, manifest, part)
        found = [ids for shard in range(len(split.records)) for ids in split.documents(shard)]
        assert all(ids[-1] == coder.end and coder.end not in ids[:-1] for ids in found)
        # Each file is a part of the source, and the parts follow each other.
        files = [text for file in range(3) for text in TEXTS[file::3]]
        assert [coder.decode(ids) for ids in found] == [t for t in files if corpus.is_heldout(t, 0.2) == heldout]
        assert split.num_tokens == sum(ids.size for ids in found)
        assert sum(record.num_documents for record in split.records) == len(found)
        assert sum(record.text_bytes for record in split.records) == sum(
            len(t.encode()) for t in files if corpus.is_heldout(t, 0.2) == heldout
        )


def test_a_folder_that_is_complete_is_read_again_and_other_settings_are_refused(ray_session, prepared, texts, tmp_path):
    folder, manifest = prepared
    cache = str(folder.parent / "cache")
    assert prepare.prepare(texts, folder, cache, block_bytes=8000, say=lambda _: None) == manifest
    with pytest.raises(ConfigError, match=r"differs: block_bytes.*--restart"):
        prepare.prepare(texts, folder, cache, block_bytes=9000, say=lambda _: None)
    with pytest.raises(ConfigError, match="corpus, source"):
        prepare.prepare(replace(texts, heldout_share=0.3), folder, cache, block_bytes=8000, say=lambda _: None)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        prepare.prepare(texts, tmp_path, cache, block_bytes=8000, say=lambda _: None)
    prepare.restart(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_what_was_killed_goes_on_and_ends_with_the_same_bytes(ray_session, prepared, texts, tmp_path):
    """The process group is killed while blocks are missing; the same call then writes only those."""
    folder, manifest = prepared
    new = tmp_path / "new"
    script = (
        "import sys, json; from pathlib import Path; from raytensor import cluster, config\n"
        "from raytensor.data import prepare, corpus\n"
        "write = prepare._write\n"
        "def slow(folder, name, texts, coder):\n"
        "    import time\n"
        "    if name >= 'train-00001': time.sleep(3600)\n"
        "    return write(folder, name, texts, coder)\n"
        "prepare._write = slow\n"
        "from ray import cloudpickle; cloudpickle.register_pickle_by_value(prepare)\n"
        "cluster.connect(config.Cluster(address=sys.argv[4]))\n"
        "prepare.prepare(config.Data(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3], block_bytes=8000,"
        " say=print)\n"
    )
    about = json.dumps({k: getattr(texts, k) for k in ("source", "files", "heldout_share", "tokenizer", "vocab_size")})
    address = ray_session.get_runtime_context().gcs_address
    arguments = [about, str(new), str(folder.parent / "cache"), address]
    child = subprocess.Popen([sys.executable, "-c", script, *arguments], start_new_session=True)
    deadline = time.monotonic() + 240
    while not list(new.glob("state/00000-*.json")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    with pytest.raises(ConfigError, match=r"has no manifest\.json"):
        shards.read_manifest(new)
    before = {path.name: path.stat().st_mtime_ns for path in new.glob("*.tokens")}
    lines: list[str] = []
    cache = str(folder.parent / "cache")
    assert prepare.prepare(texts, new, cache, block_bytes=8000, say=lines.append) == manifest
    assert "done before" in lines[0]
    for record in (*manifest.train, *manifest.heldout):
        assert (new / record.name).read_bytes() == (folder / record.name).read_bytes()
    done = {name for name in before if name.startswith("heldout-00000")}
    assert done and all((new / name).stat().st_mtime_ns == before[name] for name in done)


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped", "hashes"])
def test_a_damaged_shard_is_refused_with_its_name_and_the_fix(copy, damage):
    manifest = shards.read_manifest(copy)
    path = copy / manifest.train[1].name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-5])
    elif damage == "missing":
        path.unlink()
    else:
        data[100 if damage == "flipped" else -1] ^= 1
        path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path}: .*; fix: ") as refusal:
        split = shards.Split(copy, manifest, "train")
        split.tokens(1, 0, 80)
    assert "\n" not in str(refusal.value)


def test_a_changed_manifest_is_refused(copy):
    path = copy / shards.MANIFEST
    whole = path.read_text()
    for text in (whole.replace('"end": 0', '"end": 1'), whole[:-40], "[]", whole.replace('"num_tokens"', '"tokens"')):
        path.write_text(text)
        with pytest.raises(DataError, match=r"manifest\.json: .*fix: "):
            shards.read_manifest(copy)


def test_a_source_that_breaks_off_is_one_line(ray_session, tmp_path):
    import gzip

    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-500])
    cfg = Data(source="json", files=str(tmp_path / "*.gz"), tokenizer="bytes")
    with pytest.raises(DataError, match="can't be read") as refusal:
        prepare.prepare(cfg, tmp_path / "out", str(tmp_path), block_bytes=2000, say=lambda _: None)
    assert "\n" not in str(refusal.value)


def test_the_command_shows_and_verifies(copy, capsys):
    assert main(["data", "--help"]) == 0 and "data.prepared" in capsys.readouterr().out
    assert main(["data", "prepare", "--help"]) == 0 and "goes on where it was" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["data", "show", str(copy), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["train"]["num_documents"] + facts["heldout"]["num_documents"] == len(TEXTS)
    assert main(["data", "verify", str(copy)]) == 0 and "all are whole" in capsys.readouterr().out
    path = copy / shards.read_manifest(copy).heldout[0].name
    data = bytearray(path.read_bytes())
    data[7] ^= 4
    path.write_bytes(data)
    assert main(["data", "verify", str(copy)]) == 1
    assert str(path) in capsys.readouterr().err
    assert main(["data", "show", str(copy / "none")]) == 2 and "raytensor data prepare" in capsys.readouterr().err
    assert main(["data", "prepare", str(copy), "training.lr=1"]) == 2 and "training.lr" in capsys.readouterr().err


def test_a_large_vocabulary_and_chunks_of_a_large_shard(tmp_path):
    draw = np.random.default_rng(0)
    documents = [draw.integers(0, 90_000, size).astype(np.int32) for size in (50_000, 1, 7, 100_001)]
    record = shards.write(tmp_path, "train-00000-00000.tokens", documents, 5, 90_000)
    manifest = shards.Manifest("t", 90_000, 0, {}, (record,), ())
    split = shards.Split(tmp_path, manifest, "train")
    for expected, found in zip(documents, split.documents(0), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(split.tokens(0, 49_990, 50_010), np.concatenate(documents)[49_990:50_010])


def test_the_cached_tokenizer_equals_that_of_the_folder(prepared, texts):
    folder, manifest = prepared
    assert load_tokenizer(texts, folder.parent / "cache").digest() == manifest.tokenizer
