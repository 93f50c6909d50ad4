"""Tokenizers of pretrained models, from a folder in transformers' format or from the hub.

In: a name: a folder, "owner/name", or "owner/name@revision" (a branch, a tag or a commit). Out: a `Tokenizer` that
gives the ids that the model was trained on, its documents ended by its end-of-text token; which tokenizer a job takes.
Code in a folder is never run (`trust_remote_code` stays off). Imports transformers.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HubTokenizer
from transformers import AutoConfig, AutoTokenizer

from raytensor.config import Data
from raytensor.config.data import is_preset
from raytensor.data.text import load_tokenizer
from raytensor.data.tokenizer import AUTO, BPE, BYTES, EXPORTED, FILES, BpeTokenizer, ByteTokenizer, Tokenizer
from raytensor.errors import ConfigError


def source_of(name: str) -> dict[str, Any]:
    """A folder, hub name or "hub name@revision" as the first arguments of `from_pretrained`."""
    folder = Path(name).expanduser()
    if folder.is_dir() or "@" not in name:
        return {"pretrained_model_name_or_path": str(folder) if folder.is_dir() else name}
    name, _, revision = name.rpartition("@")
    return {"pretrained_model_name_or_path": name, "revision": revision}


def load(name: str) -> Tokenizer:
    """The tokenizer of a folder or hub name. Raises `ConfigError` when there is none that can be used."""
    folder = Path(name).expanduser()
    if folder.is_dir() and _exported_kind(folder) == BYTES:
        return ByteTokenizer()
    try:
        hub: Any = AutoTokenizer.from_pretrained(**source_of(name))
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "bpe, bytes, a folder with tokenizer.json, or a hub name with a network"
        raise ConfigError(f"data.tokenizer={name!r} can't be used: {why}\n  fix: {fix}") from error
    if not hub.is_fast:
        fix = "save it with a tokenizer.json (AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER))"
        raise ConfigError(f"data.tokenizer={name!r} has no tokenizer.json; fix: {fix}")
    end = hub.eos_token_id if hub.eos_token_id is not None else _end_of_model(name)
    if end is None:
        fix = 'add "eos_token" to its tokenizer_config.json'
        raise ConfigError(f"data.tokenizer={name!r} names no token that ends a text; fix: {fix}")
    inner = HubTokenizer.from_str(hub.backend_tokenizer.to_str())  # a copy: what is saved stays as it was loaded
    return BpeTokenizer(inner, end=int(end), adds_special=True, write=hub.save_pretrained)


def has_tokenizer(model: str) -> bool:
    """Whether a folder holds a tokenizer. True for a hub name."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return True
    return _exported_kind(folder) == BYTES or any((folder / file).is_file() for file in FILES)


def settle(data: Data, models: Iterable[str | None], cache: str, *, where: str, trained: bool = True) -> None:
    """Set `data.tokenizer` to what the job takes: the tokenizer of its models where it is "auto".

    models   that the job trains from; only folders and hub names count.
    cache    folder of trained tokenizers.
    where    the setting that names the models, for messages.
    trained  their weights are used, so their tokenizer must be the text's.

    Raises `ConfigError` when the models were trained on other ids than those that the text would have.
    """
    named = list(dict.fromkeys(model for model in models if model is not None and not is_preset(model)))
    owners = [model for model in named if has_tokenizer(model)]
    if data.tokenizer == AUTO:
        if trained and (silent := [model for model in named if model not in owners]):
            fix = "set data.tokenizer to the tokenizer that it was trained with: a folder, a hub name, bpe or bytes"
            raise ConfigError(f"{where}={silent[0]!r} has no tokenizer of its own; fix: {fix}")
        kind = BPE
        if owners:
            folder = Path(owners[0]).expanduser()
            kind = BYTES if folder.is_dir() and _exported_kind(folder) == BYTES else owners[0]
        data.tokenizer = kind
    if not trained or not owners:
        return
    taken = load_tokenizer(data, cache).digest()
    for model in owners:
        if load(model).digest() != taken:
            fix = "leave out data.tokenizer" if len(owners) == 1 else "take models of one tokenizer"
            fresh = ", or training.pretrained=false for random weights" if where == "training.model" else ""
            other = f"another tokenizer than data.tokenizer={data.tokenizer!r}"
            what = f"{where}={model!r} was trained on the ids of {other}"
            raise ConfigError(f"{what}; fix: {fix}{fresh}")


def _exported_kind(folder: Path) -> str | None:
    try:
        return json.loads((folder / EXPORTED).read_text())["tokenizer"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _end_of_model(name: str) -> int | None:
    """The end-of-text token of a model's configuration, for a tokenizer that names none."""
    try:
        found = AutoConfig.from_pretrained(**source_of(name)).get_text_config().eos_token_id
    except (OSError, ValueError, KeyError):
        return None
    return found[0] if isinstance(found, list) else found
