"""How much memory a process needs that trains a model, before there is one. Pure arithmetic, without torch.

In: numbers of parameters, bytes of activations (`trace.sizes` measures them; `llama` has a formula), an engine. Out: a
`Memory`, by what holds it at the fullest moment of a step. Optimizer states and gradients are float32. The figures of
DeepSpeed's buffers follow its defaults. Knows nothing of Ray.
"""

from dataclasses import dataclass

from raytensor.config.optimizers import ENGINES
from raytensor.types import Memory

MIB = 2**20
PROCESS = 512 * MIB  # Python, torch and transformers, as loaded by a rank or a host
GPU_PROCESS = 1024 * MIB  # on the device: context, work spaces of cuBLAS, NCCL
BUCKET = 500_000_000  # numbers in a bucket of DeepSpeed; of these it makes two in stage 3
STACK_WIDTH = {False: 16, True: 512}  # models that are computed at once, by whether they are on a GPU
STACK_ROWS = 64  # questions of one forward pass of a stack


@dataclass(frozen=True)
class Sizes:
    """A model and its micro-batch. Counts are numbers, the others bytes.

    parameters, trained  numbers in all parameters, and in those that are trained.
    layer, outside       numbers in the largest layer, and in all that is outside the layers.
    kept                 bytes at the peak of a forward and backward pass, without gradients of parameters.
    both                 the same with these gradients.
    logits               bytes of `kept` that scores of the vocabulary take.
    serving              bytes at the peak of a forward pass without a gradient.
    """

    parameters: int
    trained: int
    layer: int
    outside: int
    kept: int
    both: int
    logits: int
    serving: int


@dataclass(frozen=True)
class Llama:
    """A small Llama with tied embeddings. inner: width of the feed-forward part."""

    hidden: int
    layers: int
    vocab_size: int

    @property
    def inner(self) -> int:
        return max(16, round(8 * self.hidden / 3 / 16) * 16)

    @property
    def layer(self) -> int:
        """Numbers in the parameters of a layer."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.inner + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """Numbers in all parameters."""
        return self.layers * self.layer + (self.vocab_size + 1) * self.hidden

    def sizes(self, tokens: int, answered: int) -> Sizes:
        """tokens: of a micro-batch. answered: of a forward pass for answers. Close to `trace.sizes`."""
        hidden, inner, count = self.hidden, self.inner, self.parameters
        logits = 12 * tokens * self.vocab_size
        kept = 4 * tokens * (self.layers * (10 * hidden + 4 * inner + 40) + 3 * hidden) + logits
        serving = 4 * answered * (4 * hidden + 3 * inner)
        return Sizes(count, count, self.layer, count - self.layers * self.layer, kept, kept, logits, serving)


def of_rank(
    engine: str,
    sizes: Sizes,
    ranks: int,
    *,
    moments: int,
    accumulate: int = 1,
    bf16: bool = False,
    gpu: bool = False,
    shards: int | None = None,
) -> Memory:
    """One of `ranks` ranks.

    moments  tensors that the optimizer keeps of each parameter.
    shards   ranks over which one copy of the model is cut; None: all.
    """
    if engine == "tp":  # each rank is one of a smaller model
        return of_rank("plain", _narrow(sizes, ranks), 1, moments=moments, accumulate=accumulate, bf16=bf16, gpu=gpu)
    cut, zero, shards = ENGINES[engine].cut, engine.startswith("zero"), shards or ranks
    shares = {what: shards if what in cut else 1 for what in ("parameters", "gradients", "moments")}
    trained, working = 4 * sizes.trained, 2 if bf16 and ENGINES[engine].casts else 4
    parameters = 4 * sizes.parameters // shares["parameters"]
    gradients, gathered = trained // shares["gradients"], 0
    if zero:  # masters besides the weights that are computed with, and buckets
        parameters = working * sizes.parameters // shares["parameters"] + trained // ranks
        bucket = min(trained, 4 * BUCKET)
        gradients = {"zero1": trained, "zero2": min(trained, gradients + bucket), "zero3": gradients + 2 * bucket}[
            engine
        ]
    if engine == "zero3":
        gathered = working * min(sizes.parameters, 2 * BUCKET)
    elif "parameters" in cut:  # two layers, one of them ahead, and what is outside the layers
        gathered = working * (2 * sizes.layer + sizes.outside)
        gradients = trained if accumulate > 1 else gradients
    # Engines that drop gradients between steps hold few of them while the activations are at their peak.
    buckets = zero or engine == "ddp"
    resident = buckets or accumulate > 1
    rest = max(0, sizes.both - working * sizes.trained)
    step = sizes.kept if resident else max(sizes.kept, gradients + rest) - gradients
    logits = min(sizes.logits, step)
    parts = {"process": GPU_PROCESS if gpu else PROCESS, "parameters": parameters, "gradients": gradients}
    parts |= {"moments": moments * trained // shares["moments"], "gathered layers": gathered}
    free = step + (0 if buckets else gradients)  # while it answers
    parts |= {"activations": step - logits, "logits": logits, "serving": max(0, sizes.serving - free)}
    whole, checkpoint = 4 * sizes.parameters, trained * (1 + moments) // ranks  # each rank builds the model as a whole
    if gpu:
        export = trained if ranks == 1 else 0
        return Memory(parts, {"process": 3 * PROCESS, "the model as built": max(whole + export, checkpoint)})
    parts["checkpoint"] = checkpoint
    return Memory(parts | {"the model as built": max(0, whole + parameters + PROCESS - sum(parts.values()))})


def _narrow(sizes: Sizes, ranks: int) -> Sizes:
    """The part of a rank of engine tp: of each layer its share, of the rest all. Of a layer's activations about a
    quarter (norms, and what is added to the residual) is on every rank."""

    def part(number: int, whole: int) -> int:
        return whole + (number - whole) // ranks

    kept = part(sizes.kept, sizes.logits + (sizes.kept - sizes.logits) // 4)
    parameters, trained = part(sizes.parameters, sizes.outside), part(sizes.trained, sizes.outside)
    both = max(kept, 4 * trained + kept - sizes.logits) if sizes.both > sizes.kept else kept
    return Sizes(parameters, trained, sizes.layer // ranks, sizes.outside, kept, both, sizes.logits, sizes.serving)


def of_stack(model: Llama, count: int, rows: int, seq_len: int, *, gpu: bool) -> dict[str, int]:
    """Bytes that `count` stacked models take together; `rows` sequences of `seq_len` tokens in a batch."""
    width, own = min(count, STACK_WIDTH[gpu]), 4 * model.parameters
    hidden, inner, tokens, answered = model.hidden, model.inner, rows * seq_len, STACK_ROWS * seq_len
    layer = 10 * hidden + 4 * inner + 2
    step = 4 * tokens * (model.layers * layer + 9 * hidden + 3 * inner + model.vocab_size)
    answer = 4 * answered * (layer + 4 * hidden)
    return {"parameters": count * own, "moments": 2 * count * own, "models at work": width * (4 * own + step + answer)}
