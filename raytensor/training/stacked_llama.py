"""The arithmetic of several small Llamas at once: one batched matrix product in place of one product per model.

In: parameters [C, P] of C models of one shape (a row holds all parameters of a model), tokens. Out: each model's loss
and gradient, or its log-probabilities. The formulas are those of transformers' Llama: pre-norm, RoPE, causal
attention, SwiGLU, tied embeddings. The backward pass is written out and uses fixed buffers, because torch spends more
time on allocation and autograd than on the numbers of small models. Bounds: buffers of at most `KEPT_BUFFERS` shapes
are kept. Knows nothing of optimizers, steps or files.

A model's numbers do not depend, to the bit, on the other models: no sum runs over models, and all rows have one length.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

LAYER = (*(f"self_attn.{part}_proj" for part in "qkvo"), *(f"mlp.{part}_proj" for part in ("gate", "up", "down")))
KEPT_BUFFERS = 4  # shapes of batches or questions whose buffers are kept


@dataclass(frozen=True)
class Shape:
    """What models must share to be stacked."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    inner: int
    eps: float
    inv_freq: tuple[float, ...]

    @classmethod
    def of(cls, model: nn.Module) -> Shape | None:
        """The shape of a Llama with tied embeddings and as many key as query heads; None for any other model."""
        llm: Any = model
        c = llm.config
        plain = c.model_type == "llama" and c.tie_word_embeddings and c.num_key_value_heads == c.num_attention_heads
        if not plain or c.attention_bias or c.mlp_bias or c.hidden_act != "silu":
            return None
        rotary, trained = llm.model.rotary_emb, all(p.requires_grad for p in model.parameters())
        if c.hidden_size // c.num_attention_heads != c.head_dim or rotary.attention_scaling != 1.0 or not trained:
            return None
        sizes = (c.vocab_size, c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.intermediate_size)
        return cls(*sizes, c.rms_norm_eps, tuple(rotary.inv_freq.tolist()))

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes by the model's own names, in the order of a row: matrices first, then the norms' gains."""
        h, i = self.hidden, self.inner
        wide = {"mlp.gate_proj": (i, h), "mlp.up_proj": (i, h), "mlp.down_proj": (h, i)}
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, h)}
        for layer in range(self.layers):
            found.update({f"model.layers.{layer}.{part}.weight": wide.get(part, (h, h)) for part in LAYER})
        for layer in range(self.layers):
            norms = ("input_layernorm", "post_attention_layernorm")
            found.update({f"model.layers.{layer}.{part}.weight": (h,) for part in norms})
        return found | {"model.norm.weight": (h,)}

    @property
    def num_decayed(self) -> int:
        """Numbers of a row that belong to matrices; they come first."""
        return self.vocab * self.hidden + self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.inner)

    @property
    def num_parameters(self) -> int:
        """Length of a row."""
        return self.num_decayed + (2 * self.layers + 1) * self.hidden


class _Weights:
    """Views of rows [C, P] as matrices. q, k, v and gate, up are adjacent, so that one product computes all of them."""

    def __init__(self, rows: Tensor, shape: Shape) -> None:
        h, i, at = shape.hidden, shape.inner, 0

        def view(*size: int) -> Tensor:
            nonlocal at
            num = torch.Size(size).numel()
            at += num
            return rows[:, at - num : at].unflatten(1, size)

        self.embed = view(shape.vocab, h)
        self.layers = [(view(3 * h, h), view(h, h), view(2 * i, h), view(h, i)) for _ in range(shape.layers)]
        self.norms = [(view(h), view(h)) for _ in range(shape.layers)]
        self.norm = view(h)


class _Buffers:
    """Buffers of one forward (and backward) pass of C models on B sequences of T tokens each."""

    def __init__(
        self, shape: Shape, models: int, sequences: int, length: int, device: torch.device, *, train: bool
    ) -> None:
        h, i, n = shape.hidden, shape.inner, sequences * length
        self.length, self.train = length, train

        def buffer(*size: int) -> Tensor:
            return torch.empty(models, n, *size, device=device)

        def layer() -> dict[str, Tensor]:
            sizes = {"n1": h, "r1": 1, "h1": h, "qkv": 3 * h, "rotated": 2 * h, "n2": h, "r2": 1, "h2": h}
            return {name: buffer(size) for name, size in (sizes | {"wide": 2 * i, "gated": i, "inner": i}).items()}

        # Without a backward pass all layers share one set of buffers.
        self.layers: list[dict[str, Any]] = [layer() for _ in range(shape.layers if train else 1)]
        self.layers *= 1 if train else shape.layers
        self.x, self.n, self.r, self.h = buffer(h), buffer(h), buffer(1), buffer(h)
        position = torch.arange(length, device=device, dtype=torch.float32)
        angles = position[:, None] * torch.tensor(shape.inv_freq, device=device)
        self.cos, self.sin = angles.cos()[:, None], angles.sin()[:, None]  # [T, 1, D / 2]
        self.first_id = shape.vocab * torch.arange(models, device=device)[:, None]
        if train:
            self.logits = buffer(shape.vocab)
            self.dh, self.dx, self.t, self.dot = buffer(h), buffer(h), buffer(h), buffer(1)
            self.dwide, self.dinner, self.dqkv = buffer(2 * i), buffer(i), buffer(3 * h)

    def of(self, models: int) -> _Buffers:
        """The same buffers for the first `models` models only."""
        view = object.__new__(_Buffers)
        view.__dict__.update({key: v[:models] if isinstance(v, Tensor) else v for key, v in self.__dict__.items()})
        view.layers = [{key: value[:models] for key, value in layer.items()} for layer in self.layers]
        view.cos, view.sin = self.cos, self.sin
        return view


class StackedLlama:
    """Computes with the first rows of `rows` and `grads` ([C, P], float32).

    The caller copies models into the rows and out again; a call computes as many as its arguments hold.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape = shape
        self.rows = torch.zeros(0, shape.num_parameters, device=device)
        self.grads = torch.zeros_like(self.rows)
        self._device = device
        self._buffers: OrderedDict[tuple[Any, ...], dict[int, _Buffers]] = OrderedDict()
        self._views: dict[int, tuple[_Weights, _Weights]] = {}

    def reserve(self, models: int) -> None:
        """Make room for `models` rows. When the rows grow, their content is lost."""
        if len(self.rows) < models:
            self.rows = torch.zeros(models, self.shape.num_parameters, device=self._device)
            self.grads = torch.zeros_like(self.rows)
            self._buffers.clear()
            self._views.clear()

    @torch.no_grad()
    def loss_and_grads(self, tokens: Tensor) -> Tensor:
        """Mean loss in nats per token, float32 [C], of tokens int64 [C, B, T + 1]; writes gradients to `grads[:C]`."""
        models, sequences, length = tokens.shape
        length -= 1
        b = self._room(models, sequences, length, train=True)
        weights, grads = self._view(models)
        ids = tokens[:, :, :-1].reshape(models, -1)
        self._forward(weights, b, ids)
        n = sequences * length
        logits = torch.bmm(b.h, weights.embed.mT, out=b.logits)
        log_probs = torch.log_softmax(logits, dim=-1, out=logits)
        targets = tokens[:, :, 1:].reshape(models, n, 1)
        loss = -log_probs.gather(2, targets).mean(dim=(1, 2))
        dlogits = log_probs.exp_()
        dlogits.scatter_add_(2, targets, dlogits.new_full((1, 1, 1), -1.0).expand(models, n, 1))
        dlogits.mul_(1.0 / n)
        self._backward(weights, grads, b, dlogits, ids)
        return loss

    @torch.no_grad()
    def log_probs(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """float32 [C, B, V]: log-probabilities after contexts (int64 [C, B, T], padded on the right; [C, B])."""
        models, sequences, length = tokens.shape
        b = self._room(models, sequences, length, train=False)
        weights, _ = self._view(models)
        self._forward(weights, b, tokens.reshape(models, -1))
        last = torch.arange(sequences, device=self._device) * length + lengths - 1
        chosen = b.h.gather(1, last[..., None].expand(-1, -1, self.shape.hidden))
        return torch.log_softmax(torch.bmm(chosen, weights.embed.mT), dim=-1)

    def _forward(self, weights: _Weights, b: _Buffers, ids: Tensor) -> None:
        x, inner = b.x, self.shape.inner
        embed = weights.embed
        if embed.is_contiguous():
            torch.index_select(embed.flatten(0, 1), 0, (ids + b.first_id[: len(ids)]).flatten(), out=x.flatten(0, 1))
        else:
            torch.gather(embed, 1, ids[..., None].expand(-1, -1, self.shape.hidden), out=x)
        for (qkv, out, wide, down), (gain1, gain2), saved in zip(weights.layers, weights.norms, b.layers, strict=True):
            self._norm(x, gain1, saved["n1"], saved["r1"], saved["h1"])
            torch.bmm(saved["h1"], qkv.mT, out=saved["qkv"])
            saved["attention"] = self._attend(saved, b)
            x.baddbmm_(_flat(saved["attention"][0], x), out.mT)
            self._norm(x, gain2, saved["n2"], saved["r2"], saved["h2"])
            both = torch.bmm(saved["h2"], wide.mT, out=saved["wide"])
            torch.ops.aten.silu.out(both[..., :inner], out=saved["gated"])
            torch.mul(saved["gated"], both[..., inner:], out=saved["inner"])
            x.baddbmm_(saved["inner"], down.mT)
        self._norm(x, weights.norm, b.n, b.r, b.h)

    def _backward(self, weights: _Weights, grads: _Weights, b: _Buffers, dlogits: Tensor, ids: Tensor) -> None:
        dx, dh, inner = b.dx, b.dh, self.shape.inner
        torch.bmm(dlogits.mT, b.h, out=grads.embed)
        torch.bmm(dlogits, weights.embed, out=dh)
        self._norm_backward(dh, weights.norm, b.n, b.r, grads.norm, b, dx, first=True)
        layers = list(zip(weights.layers, grads.layers, weights.norms, grads.norms, b.layers, strict=True))
        for (qkv, out, wide, down), (dqkv, dout, dwide, ddown), (gain1, gain2), (dgain1, dgain2), saved in layers[::-1]:
            torch.bmm(dx.mT, saved["inner"], out=ddown)
            dinner = torch.bmm(dx, down, out=b.dinner)
            torch.mul(dinner, saved["gated"], out=b.dwide[..., inner:])
            dinner.mul_(saved["wide"][..., inner:])
            torch.ops.aten.silu_backward.grad_input(dinner, saved["wide"][..., :inner], grad_input=b.dwide[..., :inner])
            torch.bmm(b.dwide.mT, saved["h2"], out=dwide)
            torch.bmm(b.dwide, wide, out=dh)
            self._norm_backward(dh, gain2, saved["n2"], saved["r2"], dgain2, b, dx)
            attention, inputs = saved.pop("attention")
            torch.bmm(dx.mT, _flat(attention, dx), out=dout)
            torch.bmm(dx, out, out=dh)
            self._attend_backward(attention, inputs, dh, b)
            torch.bmm(b.dqkv.mT, saved["h1"], out=dqkv)
            torch.bmm(b.dqkv, qkv, out=dh)
            self._norm_backward(dh, gain1, saved["n1"], saved["r1"], dgain1, b, dx)
        grads.embed.scatter_add_(1, ids[..., None].expand(-1, -1, self.shape.hidden), dx)

    def _norm(self, x: Tensor, gain: Tensor, n: Tensor, r: Tensor, h: Tensor) -> None:
        """RMSNorm (Zhang and Sennrich 2019): r = (mean x^2 + eps)^-1/2, n = r x, h = gain n."""
        torch.mul(x, x, out=n)
        torch.mean(n, dim=-1, keepdim=True, out=r).add_(self.shape.eps).rsqrt_()
        torch.mul(x, r, out=n)
        torch.mul(n, gain[:, None], out=h)

    @staticmethod
    def _norm_backward(
        dh: Tensor, gain: Tensor, n: Tensor, r: Tensor, dgain: Tensor, b: _Buffers, dx: Tensor, *, first: bool = False
    ) -> None:
        """dgain = sum dh n; dx += r (gain dh - n mean(gain dh n)). Overwrites `dh`."""
        torch.mul(dh, n, out=b.t)
        torch.sum(b.t, dim=1, out=dgain)
        dh.mul_(gain[:, None])
        torch.mul(dh, n, out=b.t)
        torch.mean(b.t, dim=-1, keepdim=True, out=b.dot)
        dh.addcmul_(n, b.dot, value=-1.0)
        if first:
            torch.mul(dh, r, out=dx)
        else:
            dx.addcmul_(dh, r)

    def _attend(self, saved: dict[str, Any], b: _Buffers) -> tuple[Tensor, tuple[Tensor, ...]]:
        """RoPE (Su et al. 2021, rotated halves) and causal attention, for the heads of all models in one call."""
        length, heads = b.length, self.shape.heads
        qkv = saved["qkv"].view(-1, length, 3 * heads, self.shape.hidden // heads)
        rotated = saved["rotated"].view(-1, length, 2 * heads, qkv.shape[-1])
        (low, high), (new_low, new_high) = qkv[:, :, : 2 * heads].chunk(2, -1), rotated.chunk(2, -1)
        torch.mul(low, b.cos, out=new_low).addcmul_(high, b.sin, value=-1.0)
        torch.mul(high, b.cos, out=new_high).addcmul_(low, b.sin)
        parts = (rotated[:, :, :heads], rotated[:, :, heads:], qkv[:, :, 2 * heads :])
        train = b.train
        q, k, v = (part.transpose(1, 2).detach().requires_grad_(train) for part in parts)
        with torch.set_grad_enabled(train):
            return scaled_dot_product_attention(q, k, v, is_causal=True), (q, k, v)

    def _attend_backward(self, attention: Tensor, inputs: tuple[Tensor, ...], da: Tensor, b: _Buffers) -> None:
        length, heads = b.length, self.shape.heads
        da = da.view(-1, length, heads, self.shape.hidden // heads).transpose(1, 2)
        dq, dk, dv = torch.autograd.grad(attention, inputs, da)
        dqkv = b.dqkv.view(-1, length, 3 * heads, da.shape[-1])
        for part, grad in enumerate((dq, dk)):
            low, high = grad.transpose(1, 2).chunk(2, -1)
            new_low, new_high = dqkv[:, :, part * heads : (part + 1) * heads].chunk(2, -1)
            torch.mul(low, b.cos, out=new_low).addcmul_(high, b.sin)
            torch.mul(high, b.cos, out=new_high).addcmul_(low, b.sin, value=-1.0)
        dqkv[:, :, 2 * heads :].copy_(dv.transpose(1, 2))

    def _room(self, models: int, sequences: int, length: int, *, train: bool) -> _Buffers:
        key, most = (sequences, length, train), len(self.rows)
        if (views := self._buffers.pop(key, None)) is None:
            views = {most: _Buffers(self.shape, most, sequences, length, self._device, train=train)}
        self._buffers[key] = views
        if len(self._buffers) > KEPT_BUFFERS:
            self._buffers.popitem(last=False)
        if models not in views:
            views[models] = views[most].of(models)
        return views[models]

    def _view(self, models: int) -> tuple[_Weights, _Weights]:
        if models not in self._views:
            self._views[models] = (_Weights(self.rows[:models], self.shape), _Weights(self.grads[:models], self.shape))
        return self._views[models]


def _flat(heads: Tensor, like: Tensor) -> Tensor:
    """[C * B, heads, T, D] as [C, N, H]."""
    return heads.transpose(1, 2).reshape(like.shape)
