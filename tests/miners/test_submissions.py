"""Files that miners hand in: what each behaviour makes, that it is the miner's own model, and what stays on disk."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.data.text import Text, unigram
from raytensor.errors import ConfigError
from raytensor.jobs.run.plan import refuse_unusable
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.evidence import State
from raytensor.mechanisms.model_eval import ModelEvalMechanism
from raytensor.miners.files import KEPT, FileStore
from raytensor.miners.fleet import Fleet
from raytensor.miners.host import MinerHost
from raytensor.miners.submission_export import refuse_unlike
from raytensor.training import single_file
from raytensor.types import Failure, FileCommit, Score, Submission, Task

V, T = 50, 16
SMALL = {"hidden": 32, "layers": 1, "heads": 2, "steps": 3, "batch_size": 4}
BEHAVIOURS = ("honest", "copy", "copy_noise", "random", "constant", "silent", "lazy")
HOTKEYS = [f"m{i}-{behaviour}" for i, behaviour in enumerate(BEHAVIOURS)]
BOUNDS = {"max_bytes": 2**24, "max_parameters": 10**6, "vocab_size": V}


@pytest.fixture(scope="module")
def text():
    draw = np.random.default_rng(0)
    train, heldout = draw.integers(0, V, 4_000).astype(np.uint16), draw.integers(0, V, 1_000).astype(np.uint16)
    return Text(train, heldout, np.array([0, 4_000]), np.array([0, 1_000]), unigram(train, V), V, 1.0)


def configuration(folder: Path, *profiles: MinerProfile, **miners) -> config.RunConfig:
    section = config.Miners(
        num_miners=len(profiles),
        profiles=list(profiles),
        seq_len=T,
        warmup_rounds=1,
        heldout_rows=16,
        cpus_per_host=0.2,
        files=str(folder / "files"),
        commit_every=2,
        **miners,
    )
    rule = config.Mechanism(
        path="raytensor.mechanisms.model_eval.ModelEvalMechanism",
        model_eval=config.ModelEval(seq_len=T, sequences=64, probes=16),
    )
    return config.RunConfig(miners=section, mechanism=rule)


def question(hotkey: str, digest: str) -> Task:
    return Task(
        f"1/{hotkey}",
        1,
        1,
        "v",
        hotkey,
        np.zeros((1, 1), np.int32),
        np.ones(1, np.int32),
        1,
        60.0,
        "file",
        digest=digest,
    )


def opened(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """A file as a function: log-probabilities float32 [B, V] of the token after each whole row."""
    model = single_file.unpack(Path(path).read_bytes(), **BOUNDS)

    def log_probs(tokens: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.log_softmax(
                model(input_ids=torch.from_numpy(tokens.astype(np.int64))).logits[:, -1].float(), dim=-1
            ).numpy()

    return log_probs


@pytest.fixture
def host(text, tmp_path):
    """A host of one miner of each behaviour; the honest one is stacked with the lazy one."""
    torch.set_num_threads(1)
    cfg = configuration(tmp_path, *[MinerProfile(behaviour=behaviour, **SMALL) for behaviour in BEHAVIOURS])
    return MinerHost(cfg, list(zip(HOTKEYS, cfg.miners.profiles, strict=True)), text)


def test_what_each_behaviour_hands_in(host, text):
    honest, copy, noise, random, constant, silent, lazy = HOTKEYS
    first = host.train(1, {}, {}).files
    assert set(first) == {honest, random, constant, lazy}  # nothing is there to copy yet
    assert host.train(2, first, {}).files == {}  # every other round
    victim = dict.fromkeys((copy, noise), (honest, first[honest]))
    third = host.train(3, first, victim).files
    assert third[copy] == first[honest] != third[honest] and third[noise] not in (first[honest], third[honest])
    assert {name: third[name] for name in (random, constant, lazy)} == {
        name: first[name] for name in (random, constant, lazy)
    }
    assert silent not in third

    tokens = text.heldout[: 8 * T].reshape(8, T).astype(np.int32)
    lengths = np.full(8, T, np.int32)
    answers = {hotkey: host.answer(question(hotkey, digest)) for hotkey, digest in third.items()}
    for hotkey, answer in answers.items():
        assert isinstance(answer, Submission) and (answer.hotkey, answer.digest) == (hotkey, third[hotkey])
        assert single_file.digest(Path(answer.path).read_bytes()) == third[hotkey]
    for hotkey in (honest, random, lazy):  # the file computes what the miner answers
        np.testing.assert_allclose(
            opened(answers[hotkey].path)(tokens), host._miners[hotkey].engine.log_probs(tokens, lengths), atol=2e-5
        )
    table = opened(answers[constant].path)(tokens)
    np.testing.assert_allclose(table, np.tile(text.log_unigram, (8, 1)), atol=1e-5)
    copied, noisy = (opened(answers[name].path)(tokens) for name in (copy, noise))
    assert 0 < np.sqrt(np.mean((copied - noisy) ** 2)) < 0.05

    # Of an earlier version too, but of nothing else.
    assert isinstance(host.answer(question(honest, first[honest])), Submission)
    for nothing in ("", "0" * 64, f"../{copy}/{third[copy]}", third[lazy]):
        assert isinstance(host.answer(question(honest, nothing)), Failure)
    assert isinstance(host.serve(question(honest, third[honest])), Submission)
    assert host.heldout_losses()[copy] is None and host.heldout_losses()[random] > np.log(V) - 0.5


def test_scorers_read_the_files_and_find_the_copies(host, text):
    honest, copy, noise, random, constant, silent, lazy = HOTKEYS
    first = host.train(1, {}, {}).files
    third = host.train(3, first, dict.fromkeys((copy, noise), (honest, first[honest]))).files
    cfg = config.Mechanism(model_eval=config.ModelEval(seq_len=T, sequences=64, probes=16, margin=1e-4))
    mechanism, state = ModelEvalMechanism(cfg, text.log_unigram, V), State()

    def play(number: int, digests: dict[str, str], blocks: dict[str, int]) -> None:
        nonlocal state
        from raytensor.mechanisms.evidence import advance, gather

        commits = {hotkey: FileCommit(digest, blocks[hotkey]) for hotkey, digest in digests.items()}
        tasks = mechanism.tasks(Ask(f"0x{number}", 1, "v", number, tuple(HOTKEYS), commits, 100 + number), state, text)
        results = {task.task_id: mechanism.score([Item(task, trial, host.answer(task))])[0] for task, trial in tasks}
        assert all(isinstance(result, Score) for result in results.values())
        state = advance(mechanism, state, gather(1, "v", number, results, answered=results))

    blocks = dict.fromkeys(HOTKEYS, 5)
    play(1, first, blocks)
    blocks |= dict.fromkeys((honest, copy, noise), 20)  # all of one block: copies are of the file before
    play(2, third, blocks)
    statuses = state.words("status")
    assert statuses[copy] == statuses[noise] == "copy" and statuses[honest] != "copy"
    assert state.words("of") == {copy: honest, noise: honest}
    weights = mechanism.weights(state)
    assert weights[honest] > 0 and not {copy, noise, silent} & set(weights)


def test_what_stays_on_disk(tmp_path):
    store = FileStore(tmp_path)
    digests = []
    for number in range(KEPT + 3):
        digests.append(store.put("a", f"file {number}".encode()))
        os.utime(store.find("a", digests[-1]), ns=(number, number))
    (tmp_path / "a" / ".torn.tmp").write_bytes(b"half")
    store.prune("a", digests[1])
    left = {path.stem for path in (tmp_path / "a").iterdir()}
    assert left == {digests[1], *digests[-KEPT:]}
    assert store.put("a", b"file 1") == digests[1]  # the newest again
    store.prune("a", None)
    assert {path.stem for path in (tmp_path / "a").iterdir()} == {digests[1], *digests[-KEPT + 1 :]}
    assert store.find("b", digests[1]) is None


def test_all_kinds_of_engines_and_other_hosts(ray_session, text, tmp_path):
    """Sharded over two processes, stacked, alone: all hand in; who copies may sit elsewhere; nobody need be asked."""
    torch.set_num_threads(1)
    plain = MinerProfile(**SMALL)
    cfg = configuration(
        tmp_path, plain, replace(plain, engine="ddp", ranks=2, cpus_per_rank=0.2), replace(plain, behaviour="copy")
    )
    fleet = Fleet(cfg, ["m0", "m1", "m2"], text, num_hosts=2, folder=tmp_path / "checkpoints")
    try:
        pids = fleet.wait_ready(240.0)
        fleet.train(1)
        fleet.wait_trained()
        first = dict(fleet.files)
        assert set(first) == {"m0", "m1"} and fleet.train_losses.keys() == {"m0", "m1"}
        fleet.train(2, first)
        fleet.train(3, first)
        fleet.wait_trained()
        assert fleet.files["m2"] == first["m1"] != fleet.files["m1"]  # the honest one before it, as the chain shows it
        answers = {
            answer.hotkey: answer
            for answer in fleet.ask([question(hotkey, digest) for hotkey, digest in fleet.files.items()])
        }
        tokens = text.heldout[: 8 * T].reshape(8, T).astype(np.int32)
        asked = Task("q", 3, 1, "v", "m1", tokens, np.full(8, T, np.int32), V, 60.0)
        (response,) = fleet.ask([asked])
        found = np.take_along_axis(opened(answers["m1"].path)(tokens), response.ids.astype(np.int64), axis=1)
        np.testing.assert_allclose(found, np.log(response.probs), atol=2e-5)
        assert fleet.incidents() == []

        # Whoever is killed: what was promised is on the disk, and the replacement hands it in.
        for name, pid in pids.items():
            if name.startswith("miner host"):
                os.kill(pid, signal.SIGKILL)
        fleet.train(4, dict(fleet.files))
        again = {
            answer.hotkey: answer
            for answer in fleet.ask([question(hotkey, digest) for hotkey, digest in fleet.files.items()])
        }
        assert {hotkey: answer.path for hotkey, answer in again.items()} == {
            hotkey: answer.path for hotkey, answer in answers.items()
        }
        assert len(fleet.incidents()) == 2
    finally:
        fleet.close()


def test_models_that_can_not_be_handed_in_are_refused(tmp_path):
    cfg = configuration(tmp_path, MinerProfile(model="gpt2-1M"))
    with pytest.raises(ConfigError, match="profiles.0..model='gpt2-1M' can't be submitted as a file: it is a gpt2"):
        refuse_unlike(cfg)
    cfg.miners.profiles = [MinerProfile(**SMALL)]
    cfg.mechanism.model_eval.max_parameters = 1000
    with pytest.raises(
        ConfigError, match=r"parameters; scorers build at most mechanism.model_eval.max_parameters=1000"
    ):
        refuse_unlike(cfg)
    for settings, words in (
        (["mechanism=model_eval", "miners.profiles=[{lora_rank: 2}]"], "holds whole weights; use lora_rank=0"),
        (["mechanism=model_eval", "miners.profiles=[{behaviour: nan}]"], r"behaviour='nan': must be one of"),
        (["miners.profiles=[{behaviour: copy_noise}]"], r"behaviour='copy_noise': must be one of"),
        (["mechanism=model_eval", "mechanism.model_eval.seq_len=64"], r"64: must be at most miners.seq_len \(32\)"),
    ):
        with pytest.raises(ConfigError, match=words):
            refuse_unusable(config.compose("run", settings))
    assert config.compose("run", ["experiment=kings"]).mechanism.model_eval.seq_len == 32
    assert (
        config.compose(
            "validate", ["mechanism=model_eval", "netuids=[2]", "hotkeys=[//a]"]
        ).mechanism.model_eval.seq_len
        == 128
    )


def test_a_file_says_what_it_is(tmp_path, text):
    from raytensor.miners.model import frequency_table

    data = frequency_table(text.log_unigram, T)
    shape = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["llama"])
    assert (shape["hidden_size"], shape["vocab_size"], shape["max_position_embeddings"]) == (2, V, T) and len(
        data
    ) < 4000
