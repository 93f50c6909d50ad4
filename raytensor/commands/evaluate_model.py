"""Evaluates one model: builds it, measures its loss on each text, runs tasks of lm-eval.

In: settings of `train` by the name of their text. Out: rows of numbers. Waits for: reading the text and the forward
passes, on the GPU that this process sees, else on the CPU. Bounds: one batch of logits in memory (`training.base`).
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import transformers

from raytensor.config.train import TrainConfig
from raytensor.data import corpus
from raytensor.data.text import load_tokenizer
from raytensor.errors import ConfigError
from raytensor.telemetry.patience import patience
from raytensor.training import devices, heldout, loop, models
from raytensor.training.engine import PlainEngine


def rows(texts: Mapping[str, TrainConfig], whole: Sequence[str]) -> list[dict[str, Any]]:
    """For each text its name ("text"), "loss" and "error" in nats per token, "perplexity" and "tokens".

    texts  settings by name, of one model.
    whole  names of texts that are measured as a whole; the others on their held-out part.

    Raises `ConfigError` for a model that can't be built or a tokenizer that is not the model's, `DataError` for text
    that can't be read or is too short.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    first = next(iter(texts.values()))
    for cfg in texts.values():
        corpus.refuse_missing(cfg.data)
    with patience("loading the model"):
        for cfg in texts.values():
            loop.refuse_unusable(cfg)
        coder = load_tokenizer(first.data, first.paths.cache)
        model = models.build(loop.spec_of(first, coder.vocab_size))
        engine = PlainEngine(model, first.training.lr, device=devices.visible())
    found = []
    for name, cfg in texts.items():
        with patience(f"measuring {name}"):
            parts = [corpus.documents(cfg.data, heldout=part) for part in ((True, False) if name in whole else (True,))]
            loss = heldout.draw(cfg, coder, chain(*parts)).measure(engine)
        number = {"loss": loss.mean, "error": loss.error, "perplexity": math.exp(min(loss.mean, 700.0))}
        found.append({"text": name, **number, "tokens": loss.num_tokens})
    return found


def run_tasks(model: str, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Task -> its numbers, by lm-eval, which downloads what a task needs. Raises `ConfigError` without lm-eval, for an
    unknown task, or for a model whose tokenizer transformers can't read."""
    try:
        lm_eval: Any = importlib.import_module("lm_eval")
        hf: Any = importlib.import_module("lm_eval.models.huggingface")
    except ImportError as error:
        raise ConfigError(f"--tasks needs lm-eval ({error}): pip install 'raytensor[eval]'") from error
    try:
        loaded = hf.HFLM(pretrained=model, device=devices.visible())
        found = lm_eval.simple_evaluate(model=loaded, tasks=list(tasks))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"--tasks {','.join(tasks)}: {error}") from error
    results: dict[str, dict[str, Any]] = found["results"]
    return {
        task: {name.partition(",")[0]: float(value) for name, value in numbers.items() if isinstance(value, float)}
        for task, numbers in results.items()
    }
