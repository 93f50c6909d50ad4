"""A causal language model of transformers as one module with two uses: the loss of sequences, and next-token
log-probabilities.

In: token ids. Out: a loss, or log-probabilities. Every engine wraps this module as a whole (DDP, FSDP2, DeepSpeed), so
that both uses run the wrapper's hooks. Knows nothing of optimizers or ranks.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Causal(nn.Module):
    """model: of transformers. Its output embedding reads hidden states [B, T, H].

    document_end  id that ends a document: attention and positions of a sequence's loss start anew at each such token,
                  which is the first of the next document, so that a document's loss does not depend on the sequence
                  that it is in. None: a sequence is one text.
    z_loss        weight of the mean of log(Z)^2 in what is differentiated; the loss's value is without it.
    """

    def __init__(self, model: nn.Module, document_end: int | None = None, z_loss: float = 0.0) -> None:
        super().__init__()
        self.model: Any = model
        self._document_end, self._z_loss = document_end, z_loss

    def forward(self, tokens: Tensor, last: Tensor | None = None, *, by_row: bool = False) -> Tensor:
        """Mean loss in nats per token of tokens [B, T + 1], or with `by_row` of each row, float32 [B]; with `last`,
        log-probabilities: float32 [B, V].

        last  int64 [B]: the position in tokens [B, T] whose next token is predicted. Attention is causal and padding is
              on the right, so that padding has no effect.
        """
        if last is None:
            inputs = tokens[:, :-1]
            more = {} if self._document_end is None else documents_apart(inputs == self._document_end, self.model)
            logits = self.model(input_ids=inputs, use_cache=False, **more).logits
            if by_row:
                every = nn.functional.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
                return every.mean(dim=1)
            flat = logits.flatten(0, 1).float()
            loss = nn.functional.cross_entropy(flat, tokens[:, 1:].flatten())
            if not self._z_loss or not torch.is_grad_enabled():
                return loss
            penalty = self._z_loss * flat.logsumexp(dim=-1).square().mean()
            return loss + (penalty - penalty.detach())
        return next_log_probs(self.model, tokens, last, use_cache=False)


def next_log_probs(model: Any, tokens: Tensor, last: Tensor, **more: Any) -> Tensor:
    """float32 [B, V]: log-probabilities of the token after position `last` (int64 [B]) of tokens [B, T].

    more  arguments of the model's forward, such as a cache.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    # Only these positions go through the output embedding: T * V logits per row would be too many.
    embedding = model.get_output_embeddings()
    chosen = embedding.register_forward_pre_hook(lambda _, args: (args[0][rows, last][:, None],))
    try:
        logits = model(input_ids=tokens, **more).logits
    finally:
        chosen.remove()
    return torch.log_softmax(logits[:, 0].float(), dim=-1)


def documents_apart(starts: Tensor, model: Any) -> dict[str, Tensor]:
    """`position_ids` and `attention_mask` of transformers for sequences of several documents.

    starts  bool [B, T]: the tokens with which a document starts; the first token of a sequence is one anyway.
    """
    rows, length = starts.shape
    places = torch.arange(length, device=starts.device).expand(rows, length)
    positions = places - torch.where(starts, places, 0).cummax(dim=1).values
    document = starts.cumsum(dim=1)
    seen = (document[:, :, None] == document[:, None, :]) & (places[:, :, None] >= places[:, None, :])
    return {"position_ids": positions, "attention_mask": attention_mask(seen, model)}


def attention_mask(seen: Tensor, model: Any) -> Tensor:
    """The mask [B, 1, Q, T] of transformers. seen: bool [B, Q, T], which tokens each query attends to."""
    mask = seen[:, None]
    if model.config.get_text_config()._attn_implementation != "sdpa":  # the others add it to the logits
        lowest = torch.finfo(model.dtype).min
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill(~mask, lowest)
    return mask


def layers(model: nn.Module) -> nn.ModuleList:
    """The repeated layers of a transformer: its longest `ModuleList`."""
    return max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
