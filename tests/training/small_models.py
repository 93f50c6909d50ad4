"""Small real models with tokenizers of their own, as the hub has them: a GPT-2 and a Llama."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXTS = [
    f"The {noun} returns a list of {n} words, or None." for noun in ("function", "method", "class") for n in range(9)
]
CHAT = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}{% endfor %}"


def gpt2_tokenizer(texts: Iterable[str] = TEXTS, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE; a document ends with <|endoftext|>, the last id; nothing is put before a text."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    inner.add_special_tokens(["<|endoftext|>"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def llama_tokenizer(texts: Iterable[str] = TEXTS, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """BPE with byte fallback, as Llama 2 has it: <unk> 0, <s> 1 before each text, </s> 2 after it; a chat template."""
    inner = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(pieces)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    inner.train_from_iterator(texts, trainer)
    # In Llama's files the bytes are ordinary tokens: one that is special would be left out of a decoded text.
    content = json.loads(inner.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 3]
    inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = CHAT
    return made


def write_model(folder: Path, kind: str, tokenizer: Any, *, positions: int = 64, vocab_size: int = 400) -> Path:
    """A folder as `save_pretrained` writes it: random weights; without a tokenizer where it is None."""
    sizes: dict[str, Any] = {"gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": positions}}.get(
        kind,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        | {"max_position_embeddings": positions},
    )
    ends = {} if tokenizer is None else {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=vocab_size, **sizes, **ends)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
