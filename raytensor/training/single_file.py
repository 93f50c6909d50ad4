"""A model as one safetensors file: what a miner submits, and the checks before a stranger's file is opened.

In: a Llama, or bytes from anyone. Out: bytes, or a model in eval mode. The file's metadata holds the shape ("llama",
JSON), its tensors the weights by their names in transformers. No code of a file is ever run, nothing is unpickled, and
no memory is allocated before its size is known and allowed. Knows nothing of the sender.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from raytensor.errors import DataError

# The shape: every number that the computation depends on. All of them are required.
SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings"),
)
MAX_HEADER_BYTES = 2**22
MAX_LAYERS = 512
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def digest(data: bytes) -> str:
    """blake2b-256 of a file, in hex: the digest that a miner commits to."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def pack(model: nn.Module) -> bytes:
    """A Llama of transformers as a file. Raises `DataError` if `unlike` has a reason."""
    return pack_weights(model.config, model.state_dict())


def pack_weights(config: Any, weights: Mapping[str, Tensor]) -> bytes:
    """Weights of a Llama, by their names in transformers, as a file. Raises `DataError` if `unlike` has a reason."""
    if why := unlike(config):
        raise DataError(f"the model can't be submitted as one file: {why}")
    shape = _shape_of(config)
    tied = "lm_head.weight" if config.tie_word_embeddings else None
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items() if name != tied}
    return save(tensors, {"llama": json.dumps(shape)})


def unlike(config: Any) -> str | None:
    """Why a model of this configuration would compute something else when opened from a file; None when it would not.

    A file holds the shape only; everything else must be the default of transformers' Llama.
    """
    if config.model_type != "llama":
        return f"it is a {config.model_type}, and files hold Llamas"
    opened = llama(_shape_of(config))
    for name in ("hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias", "head_dim", "rope_parameters"):
        mine, default = getattr(config, name, None), getattr(opened, name, None)
        if mine != default:
            return f"its {name} is {mine!r}, and a file is opened with {default!r}"
    return None


def unpack(data: bytes, *, max_bytes: int, max_parameters: int, vocab_size: int) -> nn.Module:
    """The model of a file, in eval mode on the CPU. Raises `DataError` that names the bound that the file breaks.

    vocab_size  of the text; the model's must be equal.
    """
    if len(data) > max_bytes:
        raise DataError(f"the file has {len(data)} bytes; at most {max_bytes} are read")
    shape = _shape(_header(data))
    if shape["vocab_size"] != vocab_size:
        raise DataError(f"the model has a vocabulary of {shape['vocab_size']}; the text's is {vocab_size}")
    model = _empty(shape, max_parameters)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if shape["tie_word_embeddings"]:
        del wanted["lm_head.weight"]
    tensors = _tensors(data, wanted)
    if shape["tie_word_embeddings"]:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, strict=True, assign=True)
    # Buffers of a meta model are empty; the rotary frequencies follow from the shape.
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


def _header(data: bytes) -> Mapping[str, Any]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise DataError("not a safetensors file: its header is cut off or too large")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise DataError(f"not a safetensors file: its header is no JSON ({error})") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise DataError("the file's header has no metadata; `pack` writes it")
    return header


def _shape(header: Mapping[str, Any]) -> dict[str, int]:
    try:
        shape = json.loads(header["__metadata__"]["llama"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the file's metadata does not say what Llama it is: {error!r}") from error
    if not isinstance(shape, dict) or set(shape) != {*SHAPE, "tie_word_embeddings"}:
        raise DataError(f"the shape must have exactly {', '.join(SHAPE)} and tie_word_embeddings")
    for name in SHAPE:
        if type(shape[name]) is not int or not 1 <= shape[name] <= 2**24:
            raise DataError(f"{name}={shape[name]!r}: must be a whole number from 1 to 2^24")
    if type(shape["tie_word_embeddings"]) is not bool:
        raise DataError("tie_word_embeddings must be true or false")
    heads, kv_heads, hidden = (shape[name] for name in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    if hidden % (2 * heads) or heads % kv_heads:
        why = f"must be a multiple of 2 * {heads} heads, and the heads of {kv_heads} key/value heads"
        raise DataError(f"hidden_size={hidden} {why}")
    if shape["num_hidden_layers"] > MAX_LAYERS:
        raise DataError(f"num_hidden_layers={shape['num_hidden_layers']}: at most {MAX_LAYERS}")
    return shape


def _empty(shape: Mapping[str, int], max_parameters: int) -> Any:
    """The model on the meta device, without memory for its weights."""
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    kv_hidden = hidden // heads * shape["num_key_value_heads"]
    layer = 2 * hidden * (hidden + kv_hidden) + 3 * hidden * inner + 2 * hidden
    tables = shape["vocab_size"] * hidden * (1 if shape["tie_word_embeddings"] else 2)
    count = tables + shape["num_hidden_layers"] * layer + hidden
    if count > max_parameters:
        raise DataError(f"the model has {count} parameters; at most {max_parameters} are built")
    with torch.device("meta"):
        return LlamaForCausalLM(llama(shape))


def _shape_of(config: Any) -> dict[str, int]:
    tied = {"tie_word_embeddings": bool(config.tie_word_embeddings)}
    return {name: int(getattr(config, name)) for name in SHAPE} | tied


def llama(shape: Mapping[str, int]) -> LlamaConfig:
    """The configuration of a shape."""
    settings: dict[str, Any] = dict(shape)
    return LlamaConfig(**settings, use_cache=False, bos_token_id=None, eos_token_id=0)


def _tensors(data: bytes, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"not a safetensors file: {error}") from error
    for name in sorted({*tensors, *wanted}):
        if name not in wanted or name not in tensors:
            raise DataError(f"tensor {name!r} is {'not of this model' if name in tensors else 'missing'}")
        shape, dtype = tuple(tensors[name].shape), tensors[name].dtype
        if shape != wanted[name] or dtype not in DTYPES:
            raise DataError(f"tensor {name!r} is {dtype} {shape}; the shape asks for {wanted[name]} floats")
        if not torch.isfinite(tensors[name]).all():
            raise DataError(f"tensor {name!r} holds numbers that are not finite")
    return tensors
