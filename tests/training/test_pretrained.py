"""Models with tokenizers of their own are trained on their own ids; other ids are refused before anything starts."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CHAT, gpt2_tokenizer, llama_tokenizer, write_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from raytensor import config
from raytensor.config.train import TrainConfig
from raytensor.data import corpus, pretrained, tokenizer
from raytensor.data.packed import PackedStream
from raytensor.data.text import load_tokenizer
from raytensor.errors import ConfigError, DataError
from raytensor.jobs.run.job import run_main
from raytensor.jobs.sweep.job import sweep_main
from raytensor.jobs.train import train_main
from raytensor.training import loop, models
from raytensor.training.models import ModelSpec
from raytensor.training.ranks import alone

KINDS = {"gpt2": gpt2_tokenizer, "llama": llama_tokenizer}
ODD = ["naïve ☃ 😀 text", "it says </s> and <|endoftext|> and <s>", "  spaces\tand\nlines ", "x"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Kind -> folder of a model with its tokenizer."""
    base = tmp_path_factory.mktemp("models")
    return {kind: write_model(base / kind, kind, make()) for kind, make in KINDS.items()}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def settings(folder: Path, **data) -> TrainConfig:
    steps = [f"training.{key}={value}" for key, value in {"steps": 4, "seq_len": 16, "batch_size": 4}.items()]
    more = [f"data.{key}={value}" for key, value in ({"max_documents": 300} | data).items()]
    return config.compose(
        "train", [f"training.model={folder}", f"paths.cache={os.environ['TEXT_CACHE']}", *steps, *more]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_model(folders, kind):
    """As transformers gives them, but for special tokens that stand in the text itself."""
    ours, theirs = pretrained.load(str(folders[kind])), AutoTokenizer.from_pretrained(folders[kind])
    assert (ours.vocab_size, ours.end) == (len(theirs), theirs.eos_token_id)
    for text, ids in zip(ODD, ours.encode(ODD), strict=True):
        assert ids.tolist() == theirs(text, split_special_tokens=True)["input_ids"]
        assert ours.end not in ids.tolist()
    assert ours.encode(["a text"])[0][0] == theirs("a text")["input_ids"][0]
    assert (ours.encode(["a text"])[0][0] == 1) == (kind == "llama")  # <s>
    again = tokenizer.unpack(ours.packed())  # as other ranks get it
    assert again.digest() == ours.digest() and again.end == ours.end
    assert again.decode(ours.encode(["a text"])[0]).strip() == "a text"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_trained_on_its_own_tokenizer(folders, kind, tmp_path, capsys):
    """By default, and the export has this tokenizer, its chat template, and a hash that checkpoints have as well."""
    cfg = settings(folders[kind])
    assert cfg.data.tokenizer == "auto"
    assert train_main([*arguments(cfg), "dry_run=true"]) == 0
    assert f"tokenizer: {folders[kind]}" in capsys.readouterr().out
    pretrained.settle(cfg.data, cfg.models(), cfg.paths.cache, where="training.model")
    theirs = AutoTokenizer.from_pretrained(folders[kind])
    coder = load_tokenizer(cfg.data, cfg.paths.cache)
    batch = PackedStream(cfg.data, coder, seq_len=16, batch_size=4).batch().ravel()
    first = next(corpus.documents(cfg.data, heldout=False))
    expected = [*theirs(first, split_special_tokens=True)["input_ids"], theirs.eos_token_id]
    size = min(len(expected), len(batch))
    assert batch[:size].tolist() == expected[:size]

    loop.run(cfg, alone(), tmp_path / "run", lambda progress: None)
    export = tmp_path / "run" / "export"
    out = AutoTokenizer.from_pretrained(export)
    assert [out(text)["input_ids"] for text in ODD] == [theirs(text)["input_ids"] for text in ODD]
    assert (out.eos_token_id, out.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)
    assert out.chat_template == theirs.chat_template == (CHAT if kind == "llama" else None)
    assert AutoConfig.from_pretrained(export).eos_token_id == theirs.eos_token_id
    AutoModelForCausalLM.from_pretrained(export)
    said = json.loads((export / "raytensor.json").read_text())
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "step-0000004" / "engine.json").read_text())
    assert said["tokenizer_digest"] == manifest["position"]["tokenizer"] == coder.digest()
    assert pretrained.load(str(export)).digest() == coder.digest()  # a miner or a training that starts from it


def arguments(cfg: TrainConfig, *more: str) -> list[str]:
    return [f"training.model={cfg.training.model}", "training.seq_len=16", f"paths.cache={cfg.paths.cache}", *more]


@pytest.mark.parametrize("other", ["bpe", "bytes", "gpt2"])
def test_other_ids_are_refused_before_anything_starts(folders, tmp_path, other):
    cfg = settings(folders["llama"])
    given = folders.get(other, other)
    words = (
        f"training.model='{folders['llama']}' was trained on the ids of another tokenizer than data.tokenizer='{given}'"
    )
    more = [f"data.tokenizer={given}", "data.max_documents=300", "data.vocab_size=300"]
    with pytest.raises(ConfigError) as caught:
        train_main(arguments(cfg, *more))
    assert (
        str(caught.value) == f"{words}; fix: leave out data.tokenizer, or training.pretrained=false for random weights"
    )
    assert not (tmp_path / "runs").exists()
    assert train_main(arguments(cfg, *more, "training.pretrained=false", "dry_run=true")) == 0


@pytest.mark.parametrize(
    "main, key, shared",
    [(run_main, "miners.profiles=[{{model: {}}}]", "miners."), (sweep_main, "profile.model={}", "miners.")],
)
def test_miners_and_trials_take_the_models_tokenizer(folders, tmp_path, capsys, main, key, shared):
    cache = f"paths.cache={os.environ['TEXT_CACHE']}"
    assert main([key.format(folders["llama"]), cache, "dry_run=true"]) == 0
    capsys.readouterr()
    with pytest.raises(
        ConfigError, match="another tokenizer than data.tokenizer='bytes'; fix: leave out data.tokenizer"
    ):
        main([key.format(folders["llama"]), cache, "data.tokenizer=bytes"])
    with pytest.raises(ConfigError, match="has 64 positions .max_position_embeddings., and seq_len=128 is more"):
        main([key.format(folders["llama"]), cache, f"{shared}seq_len=128"])


def test_models_of_two_tokenizers_are_refused(folders):
    profiles = ", ".join(f"{{model: {folder}}}" for folder in folders.values())
    with pytest.raises(ConfigError, match="fix: take models of one tokenizer"):
        run_main([f"miners.profiles=[{profiles}]", f"paths.cache={os.environ['TEXT_CACHE']}", "dry_run=true"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_longer_than_the_models_positions_is_refused(folders, kind):
    with pytest.raises(ConfigError) as caught:
        train_main([f"training.model={folders[kind]}", "training.seq_len=65"])
    what = "has 64 positions (max_position_embeddings), and seq_len=65 is more"
    fix = "use seq_len=64 or less, or a model with more positions"
    assert str(caught.value) == f"model='{folders[kind]}' {what}; {fix}"
    assert train_main([f"training.model={folders[kind]}", "training.seq_len=64", "dry_run=true"]) == 0


def test_a_model_without_a_tokenizer_needs_one(folders, tmp_path):
    bare = write_model(tmp_path / "bare", "llama", None)
    with pytest.raises(ConfigError, match="has no tokenizer of its own; fix: set data.tokenizer"):
        train_main([f"training.model={bare}", "training.seq_len=16"])
    for given in ("bytes", str(folders["llama"])):
        assert (
            train_main([f"training.model={bare}", "training.seq_len=16", f"data.tokenizer={given}", "dry_run=true"])
            == 0
        )
    small = write_model(tmp_path / "small", "llama", None, vocab_size=300)
    with pytest.raises(ConfigError, match=f"a vocabulary of 300 and the text one of {len(llama_tokenizer())}"):
        train_main([f"training.model={small}", "training.seq_len=16", f"data.tokenizer={folders['llama']}"])


def test_an_export_says_its_tokenizer_whatever_it_was(tmp_path):
    """Trained on bytes or on a BPE of its own: the next training takes the same by default."""
    for kind in ("bytes", "bpe"):
        cfg = settings(Path("1M"), tokenizer=kind, vocab_size=300)
        loop.run(cfg, alone(), tmp_path / kind, lambda progress: None)
        after = settings(tmp_path / kind / "export")
        pretrained.settle(after.data, after.models(), after.paths.cache, where="training.model")
        expected = load_tokenizer(cfg.data, cfg.paths.cache)
        coder = load_tokenizer(after.data, after.paths.cache)
        assert (coder.digest(), coder.end) == (expected.digest(), expected.end)
        assert (after.data.tokenizer == "bytes") == (kind == "bytes")
        explicit = dataclasses.replace(after.data, tokenizer=kind, vocab_size=300)  # named as it was: the same ids
        pretrained.settle(explicit, after.models(), after.paths.cache, where="training.model")
        assert explicit.tokenizer == kind


def test_a_tokenizer_that_is_changed_between_two_starts_is_refused(folders, tmp_path):
    cfg = settings(folders["llama"])
    copy = tmp_path / "tokenizer"
    llama_tokenizer().save_pretrained(copy)
    cfg.data.tokenizer = str(copy)
    loop.run(cfg, alone(), tmp_path / "run", lambda progress: None)
    llama_tokenizer(["quite other texts about quite other things"] * 9, 380).save_pretrained(copy)
    with pytest.raises(DataError, match="another tokenizer"):
        loop.run(
            dataclasses.replace(cfg, training=dataclasses.replace(cfg.training, steps=6)),
            alone(),
            tmp_path / "run",
            print,
        )


def test_a_name_that_means_nothing_is_refused():
    for name in ("foo", "/no/such", "someone/tokenizer@v1"):
        with pytest.raises(ConfigError, match=f"data.tokenizer='{name}' can't be used"):
            train_main([f"data.tokenizer={name}"])


def test_a_revision_of_the_hub():
    expected = {"pretrained_model_name_or_path": "owner/name", "revision": "v1.0"}
    assert pretrained.source_of("owner/name@v1.0") == expected
    assert pretrained.source_of("owner/name") == {"pretrained_model_name_or_path": "owner/name"}


def test_large_vocabularies_are_allowed():
    assert config.compose("train", ["data.vocab_size=200000"]).data.vocab_size == 200_000


@pytest.mark.parametrize(
    "name", [*(f"{kind}-1M" for kind in ("llama", "gpt2", "qwen2", "mistral")), *models.LLAMA_SIZES]
)
def test_presets_have_no_tokenizer_of_their_own(name):
    assert config.compose("train", [f"training.model={name}"]).data.tokenizer == "bpe"
    assert models.build(ModelSpec(name), meta=True).config.vocab_size >= 1024
    assert np.isin(name.rpartition("-")[2], list(models.GPT2_SIZES))
