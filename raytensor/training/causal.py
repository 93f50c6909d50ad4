"""A causal language model of transformers as one module with two uses: the loss of sequences, and next-token
log-probabilities.

In: token ids. Out: a loss, or log-probabilities. Every engine wraps this module as a whole (DDP, FSDP2, DeepSpeed), so
that both uses run the wrapper's hooks. Knows nothing of optimizers or ranks.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Causal(nn.Module):
    """model: of transformers. Its output embedding reads hidden states [B, T, H]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: Tensor, last: Tensor | None = None, *, by_row: bool = False) -> Tensor:
        """Mean loss in nats per token of tokens [B, T + 1], or with `by_row` of each row, float32 [B]; with `last`,
        log-probabilities: float32 [B, V].

        last  int64 [B]: the position in tokens [B, T] whose next token is predicted. Attention is causal and padding is
              on the right, so that padding has no effect.
        """
        if last is None:
            logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
            if by_row:
                every = nn.functional.cross_entropy(logits.float().transpose(1, 2), tokens[:, 1:], reduction="none")
                return every.mean(dim=1)
            return nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        rows = torch.arange(len(tokens), device=tokens.device)
        # Only these positions go through the output embedding: T * V logits per row would be too many.
        embedding = self.model.get_output_embeddings()
        chosen = embedding.register_forward_pre_hook(lambda _, args: (args[0][rows, last][:, None],))
        try:
            logits = self.model(input_ids=tokens, use_cache=False).logits
        finally:
            chosen.remove()
        return torch.log_softmax(logits[:, 0].float(), dim=-1)


def layers(model: nn.Module) -> nn.ModuleList:
    """The repeated layers of a transformer: its longest `ModuleList`."""
    return max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
