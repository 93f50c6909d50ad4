"""Causal language models of transformers: by preset size, by name or folder, or small ones by their shape.

In: a `ModelSpec`. Out: a model, bit-equal for equal specs on every rank; an export that `from_pretrained` opens.
Code in a model's folder is never run (`trust_remote_code` stays off). Knows nothing of training.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from raytensor import disk
from raytensor.config.data import ARCHITECTURES, is_preset
from raytensor.data.pretrained import source_of
from raytensor.errors import ConfigError, cause_of

LLAMA_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("vocab_size", "tie_word_embeddings"),
)
DOCUMENT_ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 0}
# size -> `LLAMA_FIELDS` of a Llama.
LLAMA_SIZES = {
    "1M": (128, 4, 4, 4, 400, 1024, True),
    "5M": (256, 6, 4, 4, 688, 1024, True),
    "20M": (384, 10, 6, 6, 1056, 4096, True),
    "124M": (768, 12, 12, 12, 2048, 50257, True),
    "350M": (1024, 24, 16, 16, 2736, 50257, True),
    "1.2B": (2048, 22, 16, 16, 5376, 50257, True),
    "8B": (4096, 32, 32, 8, 14336, 128256, False),
}
# size -> (hidden, layers, heads, vocabulary) of a GPT-2, whose inner width is 4 hidden and whose embeddings are tied.
GPT2_SIZES = {
    "1M": (128, 4, 4, 1024),
    "5M": (256, 6, 4, 1024),
    "20M": (384, 10, 6, 4096),
    "124M": (768, 12, 12, 50257),
    "350M": (1024, 24, 16, 50257),
    "1.2B": (2048, 22, 16, 50257),
    "8B": (4096, 39, 32, 50257),
}
# Architectures whose configurations have the fields of Llama's.
LLAMA_LIKE = tuple(name for name in ARCHITECTURES if name != "gpt2")


@dataclass(frozen=True)
class ModelSpec:
    """Which model.

    name        a size ("124M": a Llama), architecture and size ("gpt2-124M"), a folder in transformers' format, or a
                hub name, with "@revision" if it has one; None: a small Llama of `hidden`, `layers` and `heads`.
    vocab_size  of the text; None keeps the vocabulary of the preset or folder. A folder's must not be smaller.
    seq_len     longest sequence, in tokens.
    seed        of random weights, including those of LoRA.
    pretrained  load the weights of a folder; False takes its shape only, with random weights.
    lora_rank   above 0: the weights are frozen and low-rank adapters of this rank are trained.
    """

    name: str | None = None
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    vocab_size: int | None = None
    seq_len: int = 1024
    seed: int = 0
    pretrained: bool = True
    lora_rank: int = 0


def build(spec: ModelSpec, *, meta: bool = False) -> nn.Module:
    """The model, on the CPU in float32. `meta`: without memory for its weights, for counting them.

    Raises `ConfigError` for a name that is no preset, no folder, and no model that is cached or can be downloaded.
    """
    config, has_weights = _config(spec)
    named = spec.name is not None and not is_preset(spec.name)
    if named and config.vocab_size < (spec.vocab_size or 0):
        fix = "take the tokenizer that it was trained with, or a smaller data.vocab_size"
        sizes = f"a vocabulary of {config.vocab_size} and the text one of {spec.vocab_size}"
        raise ConfigError(f"model={spec.name!r} has {sizes}; {fix}")
    config.use_cache = False
    _without_dropout(config)
    if meta:
        with torch.device("meta"):
            return _with_lora(AutoModelForCausalLM.from_config(config), spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        if has_weights:
            assert spec.name is not None
            options: dict[str, Any] = {"config": config, "dtype": torch.float32, "use_safetensors": True}
            try:
                model = AutoModelForCausalLM.from_pretrained(**source_of(spec.name), **options)
            except (OSError, ValueError) as error:
                raise _unusable(spec.name, error) from error
        else:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return _with_lora(model, spec)


def refuse_unusable(spec: ModelSpec) -> int:
    """Check that a model can be built, without building it. Returns its number of parameters.

    Raises `ConfigError` for an unknown name, a missing folder, weights that can't be opened, a vocabulary too small, or
    fewer positions than `seq_len`.
    """
    model: Any = build(spec, meta=True)
    count = num_parameters(model)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # not all models have them
    if positions is not None and positions < spec.seq_len:
        fix = f"use seq_len={positions} or less, or a model with more positions"
        what = f"has {positions} positions (max_position_embeddings), and seq_len={spec.seq_len} is more"
        raise ConfigError(f"model={spec.name!r} {what}; {fix}")
    if spec.name is not None and not is_preset(spec.name):
        for file in sorted(Path(spec.name).expanduser().glob("*.safetensors")) if spec.pretrained else []:
            try:
                with safe_open(file, framework="pt"):
                    pass
            except (OSError, SafetensorError) as error:
                why = f"{file.name} is damaged ({cause_of(error)}); copy it again"
                raise ConfigError(f"model={spec.name!r}: {why}") from error
    return count


def refuse_uncuttable(model: Any, ranks: int) -> None:
    """Raises `ConfigError` for a model that engine=tp can't cut over so many ranks."""
    config = model.config.get_text_config()
    if config.model_type not in LLAMA_LIKE:
        fix = f"a model of {', '.join(LLAMA_LIKE)}, or engine=fsdp2"
        raise ConfigError(f"engine=tp: can't cut a model of type {config.model_type!r}; fix: {fix}")
    for name in ("num_key_value_heads", "num_attention_heads", "intermediate_size"):
        if (number := getattr(config, name)) % ranks:
            fix = f"a number of ranks that divides {number}, or engine=fsdp2"
            raise ConfigError(
                f"engine=tp: {name} of the model ({number}) does not divide by ranks ({ranks}); fix: {fix}"
            )


def num_parameters(model: nn.Module) -> int:
    """Number of parameters; shared ones are counted once."""
    return sum(p.numel() for p in model.parameters())


def flops_per_token(model: nn.Module, seq_len: int) -> float:
    """Floating-point operations of a training step per token: 6 for each parameter in a product and 12 * layers *
    hidden * seq_len for attention (PaLM, arXiv 2204.02311, appendix B; causal attention is counted in full, as there).

    An input embedding is a look-up and is not counted, unless it is tied to the output embedding.
    """
    llm: Any = model
    config, table = llm.config, llm.get_input_embeddings().weight
    tied = llm.get_output_embeddings().weight is table
    params = num_parameters(model) - (0 if tied else table.numel())
    return 6.0 * params + 12.0 * config.num_hidden_layers * config.hidden_size * seq_len


def export(
    spec: ModelSpec, weights: Mapping[str, Tensor], folder: Path, save_tokenizer: Callable[[Path], object] | None = None
) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` opens: config.json and safetensors, adapters merged.

    weights         of the trained parameters: `Engine.weights` of the first rank.
    save_tokenizer  writes the files of the tokenizer to a folder: `Tokenizer.save`.
    """
    model: Any = build(spec)
    found = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            found[name].copy_(value)
    if spec.lora_rank:
        model = model.merge_and_unload()
    with disk.new_folder(folder) as new:
        model.save_pretrained(new)
        if save_tokenizer is not None:
            save_tokenizer(new)


def _split(name: str) -> tuple[str, str]:
    architecture, _, size = name.rpartition("-")
    return architecture or "llama", size


def _config(spec: ModelSpec) -> tuple[Any, bool]:
    """(configuration of transformers, whether there are weights to load)."""
    if spec.name is None:
        # The usual initializer_range of 0.02 suits wide models; narrow ones learn faster from a larger one.
        inner = max(16, round(8 * spec.hidden / 3 / 16) * 16)
        shape = (spec.hidden, spec.layers, spec.heads, spec.heads, inner, spec.vocab_size or 1024, True)
        return _llama("llama", shape, spec, initializer_range=0.5 / spec.hidden**0.5), False
    if not is_preset(spec.name):
        return _known(spec)
    architecture, size = _split(spec.name)
    if architecture != "gpt2":
        return _llama(architecture, LLAMA_SIZES[size], spec), False
    hidden, layers, heads, vocab = GPT2_SIZES[size]
    sizes = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": max(1024, spec.seq_len)}
    return GPT2Config(vocab_size=spec.vocab_size or vocab, **sizes, **DOCUMENT_ENDS), False


def _llama(architecture: str, shape: tuple[int, int, int, int, int, int, bool], spec: ModelSpec, **more: Any) -> Any:
    settings = dict(zip(LLAMA_FIELDS, shape, strict=True)) | DOCUMENT_ENDS | more
    settings["vocab_size"] = spec.vocab_size or settings["vocab_size"]
    return AutoConfig.for_model(architecture, max_position_embeddings=spec.seq_len, **settings)


def _known(spec: ModelSpec) -> tuple[Any, bool]:
    assert spec.name is not None
    folder = Path(spec.name).expanduser()
    if not folder.is_dir() and _is_local(spec.name):
        fix = f"give one that holds config.json, or a size: {', '.join(LLAMA_SIZES)}"
        raise ConfigError(f"model={spec.name!r}: there is no such folder; {fix}")
    try:
        config = AutoConfig.from_pretrained(**source_of(spec.name))
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(spec.name, error) from error
    weights = spec.pretrained and (not folder.is_dir() or any(folder.glob("*.safetensors")))
    return config, weights


def _is_local(name: str) -> bool:
    """Whether a name means a folder of this machine. A hub name is "name" or "owner/name"."""
    path = Path(name).expanduser()
    if path.is_absolute() or name.startswith((".", "~")) or len(path.parts) > 2:
        return True
    if len(path.parts) == 2:
        return Path(path.parts[0]).is_dir()
    models = [found.parent.name for found in Path().glob("*/config.json")]
    return bool(difflib.get_close_matches(name, models, n=1, cutoff=0.8))


def _unusable(name: str | None, error: BaseException) -> ConfigError:
    sizes, why = ", ".join(LLAMA_SIZES), str(error).strip().splitlines()[0]
    fix = f"a size ({sizes}), gpt2-SIZE, a folder with config.json and safetensors, or a hub name with a network"
    return ConfigError(f"model={name!r} can't be used: {why}\n  fix: {fix}")


def _without_dropout(config: Any) -> None:
    """Set all dropout to 0: training must be a pure function of weights and batches, on any number of ranks."""
    for key, value in config.to_dict().items():
        if ("dropout" in key or "pdrop" in key) and isinstance(value, float):
            setattr(config, key, 0.0)


def _with_lora(model: Any, spec: ModelSpec) -> nn.Module:
    if not spec.lora_rank:
        return model
    try:  # an optional dependency
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        fix = "pip install 'raytensor[lora]'"
        raise ConfigError(f"lora_rank={spec.lora_rank}: needs the package peft: {fix}") from error
    rank, is_gpt2 = spec.lora_rank, model.config.model_type == "gpt2"
    targets: Any = ["c_attn", "c_proj", "c_fc"] if is_gpt2 else "all-linear"
    options: dict[str, Any] = {"target_modules": targets, "fan_in_fan_out": is_gpt2, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, **options))
