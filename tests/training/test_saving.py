"""Checkpoints that are written while the training goes on, and in an object store behind a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from raytensor import storage
from raytensor.config import Data
from raytensor.config.train import TrainConfig, Training
from raytensor.errors import ConfigError, DamagedCheckpoint, StorageError
from raytensor.training import checkpoint, loop, models, saving
from raytensor.training.engine import PlainEngine
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import alone

SPEC = ModelSpec(hidden=32, layers=2, heads=2, vocab_size=64, seq_len=16)
SHAPES = {name: tuple(p.shape) for name, p in models.build(SPEC).named_parameters()}


def engine() -> PlainEngine:
    torch.set_num_threads(1)
    return PlainEngine(models.build(SPEC), 3e-3)


def train(found: PlainEngine, seed: int, steps: int = 2) -> float:
    return found.train_steps(np.random.default_rng(seed).integers(0, 64, (steps, 4, 17)))


def state_of(place: Path | str) -> dict[str, torch.Tensor]:
    found = checkpoint.Reader(place, SHAPES)
    return {f"{name}.{key}": value for name in SHAPES for key, value in found[name].items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_steps_during_a_write_are_not_in_it_and_the_next_save_waits(tmp_path, monkeypatch):
    """The write is held until the engine has trained on."""
    found, go_on, entered, complete = engine(), threading.Event(), threading.Event(), []
    train(found, 1)
    found.save(tmp_path / "expected")
    part = saving._write_part

    def held(*args):
        entered.set()
        assert go_on.wait(60)
        return part(*args)

    monkeypatch.setattr(saving, "_write_part", held)
    with saving.Saver(alone()) as saver:
        saver.save(tmp_path / "first", found.snapshot, lambda: complete.append("first"))
        assert entered.wait(60)
        train(found, 2, steps=3)
        assert not complete and not (tmp_path / "first").exists()
        go_on.set()
        saver.save(tmp_path / "second", partial(found.snapshot, {"at": 5}), lambda: complete.append("second"))
        assert complete[0] == "first"
        assert saver.stalled_s > 0
    assert complete == ["first", "second"]
    assert same(state_of(tmp_path / "first"), state_of(tmp_path / "expected"))
    assert not same(state_of(tmp_path / "first"), state_of(tmp_path / "second"))
    again = engine()
    assert again.load(tmp_path / "second") == {"at": 5} and again.steps == 5
    assert train(again, 3) == train(found, 3)


def test_a_file_is_what_safetensors_reads_and_its_hash_is_that_of_its_bytes(tmp_path):
    import xxhash

    found = engine()
    train(found, 1)
    found.save(tmp_path / "point")
    manifest = json.loads((tmp_path / "point" / "engine.json").read_text())
    for name, entry in manifest["files"].items():
        data = (tmp_path / "point" / name).read_bytes()
        assert (len(data), xxhash.xxh3_64_hexdigest(data)) == (entry["bytes"], entry["xxh3"])
        assert save(load_file(tmp_path / "point" / name), {"format": "pt"}) == data
    read = load_file(tmp_path / "point" / "model.safetensors")
    assert all(torch.equal(read[name], value) for name, value in found.weights().items())


def test_what_can_not_be_written_is_raised_by_the_next_call_and_leaves_nothing(tmp_path):
    found, blocked = engine(), tmp_path / "file"
    blocked.write_text("")
    saver = saving.Saver(alone())
    saver.save(blocked / "point", found.snapshot, lambda: pytest.fail("it is not complete"))
    with pytest.raises(OSError):
        saver.wait()
    saver.save(tmp_path / "good", found.snapshot, lambda: None)
    saver.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "good"]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_saving import engine, train
from raytensor.training import saving
from raytensor.training.ranks import alone
blocks = saving._serialized
def killed(tensors):
    for number, block in enumerate(blocks(tensors)):
        yield block
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
for points in sys.argv[2:]:
    if not (child := os.fork()):
        found, saver = engine(), saving.Saver(alone())
        train(found, 1)
        saver.save(points + "/step-0000002", found.snapshot, lambda: None)
        saver.wait()
        train(found, 2)
        saving._serialized = killed
        saver.save(points + "/step-0000004", found.snapshot, lambda: None)
        saver.wait()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before(tmp_path, s3):
    """On a disk and in a store."""
    places = [str(tmp_path / "points"), s3("killed")]
    subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), *places], timeout=240, check=True)
    for points in places:
        assert checkpoint.steps_in(storage.open_folder(points)) == [2]
        again = engine()
        train(again, 1)
        loaded = engine()
        loaded.load(f"{points}/step-0000002")
        assert train(loaded, 2) == train(again, 2)
        loaded.save(f"{points}/step-0000004")  # over what is left of the killed one
        assert checkpoint.steps_in(storage.open_folder(points)) == [2, 4]


def test_a_part_of_an_upload_is_no_checkpoint_and_damage_is_found(s3):
    """The manifest is the last object: without it, a step does not count."""
    points, found = storage.open_folder(s3("points")), engine()
    for step in (2, 4, 6):
        train(found, step)
        found.save(f"{points.place}/{checkpoint.step_name(step)}")
    points.remove("step-0000006/engine.json")
    assert checkpoint.steps_in(points) == [2, 4]
    data = bytearray(points.read("step-0000004/model.safetensors"))
    data[-1] ^= 1
    points.write("step-0000004/model.safetensors", bytes(data))
    places = [f"{points.place}/{checkpoint.step_name(step)}" for step in (4, 2)]
    place, _, damaged = checkpoint.load_newest(places, engine().load)
    assert place == places[1] and "model.safetensors is damaged: its hash" in str(damaged[0])
    points.remove("step-0000002/optimizer.safetensors")
    with pytest.raises(DamagedCheckpoint, match=r"step-0000002.*optimizer\.safetensors is missing"):
        engine().load(places[1])


def test_a_training_keeps_its_checkpoints_and_its_export_in_a_store(tmp_path, s3):
    """A process on another disk goes on from there, and ends with the loss of an unbroken training."""

    def settings(store: str | None) -> TrainConfig:
        training = Training(steps=12, seq_len=16, batch_size=4, checkpoint_every=4, log_every=2, heldout_rows=16)
        training.store, training.heldout_every = store, 0
        cfg = TrainConfig(data=Data(max_documents=300, tokenizer="bytes"), training=training)
        cfg.paths.cache = os.environ["TEXT_CACHE"]
        return cfg

    class Stop(Exception):
        pass

    def stop(progress) -> None:
        if progress.step == 10:
            raise Stop

    losses: dict[str, list[float]] = {"whole": [], "again": []}
    loop.run(settings(None), alone(), tmp_path / "whole", lambda step: losses["whole"].append(step.loss))
    store = s3("runs")
    with pytest.raises(Stop):
        loop.run(settings(store), alone(), tmp_path / "one" / "mine", stop)
    assert checkpoint.steps_in(storage.open_folder(f"{store}/mine/checkpoints")) == [4, 8]
    loop.run(settings(store), alone(), tmp_path / "two" / "mine", lambda step: losses["again"].append(step.loss))
    assert losses["again"] == losses["whole"][4:]
    assert checkpoint.steps_in(storage.open_folder(f"{store}/mine/checkpoints")) == [8, 12]
    kept = storage.open_folder(f"{store}/mine/export")
    for name in kept.names():
        assert kept.read(name) == (tmp_path / "two" / "mine" / "export" / name).read_bytes()
    assert {"config.json", "model.safetensors"} < set(kept.names())
    assert not (tmp_path / "two" / "mine" / "checkpoints").exists()


def test_refusals_of_a_store_name_the_cause_and_the_fix(s3, monkeypatch):
    url = s3("errors")
    bucket = url.split("/")[2]
    nowhere = url.replace(bucket, "nowhere")
    for work in (
        lambda folder: folder.names(),
        lambda folder: folder.write("a", b"x"),
        lambda folder: folder.read("a"),
    ):
        with pytest.raises(StorageError, match=r"nowhere/.*: the bucket does not exist; fix: ") as refusal:
            work(storage.open_folder(nowhere))
        assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match=r"^training.store: s3://nowhere.*the bucket does not exist; fix: create it"):
        storage.refuse_unreachable(nowhere, "training.store")
    with pytest.raises(FileNotFoundError, match="no such object.*errors/none"):
        storage.open_folder(url).read("none")
    with pytest.raises(ConfigError, match=r"'ftp://host/x' is no object store.*s3://BUCKET/PREFIX"):
        storage.open_folder("ftp://host/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(storage, "RETRIES", 0)
    with pytest.raises(StorageError, match="it can't be reached; fix: check the network and AWS_ENDPOINT_URL"):
        storage.open_folder(url).names()
    with monkeypatch.context() as without:
        without.setattr(storage, "obstore", None)
        with pytest.raises(ConfigError, match=r"pip install 'raytensor\[s3\]'"):
            storage.open_folder(url)


def test_an_object_that_was_changed_in_the_store_is_refused(s3):
    import obstore

    folder = storage.open_folder(s3("hashes"))
    folder.write("a/b.bin", b"as written")
    assert folder.read("a/b.bin") == b"as written" and folder.folders() == ["a"]
    key = folder._key("a/b.bin")
    saved = obstore.get(folder._store, key).attributes
    obstore.put(folder._store, key, b"as changed", attributes={storage.HASH: saved[storage.HASH]})
    with pytest.raises(StorageError, match=r"hashes/a/b\.bin is damaged"):
        folder.read("a/b.bin")
