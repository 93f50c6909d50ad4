"""Text: where it comes from, how it is split and tokenized, and who gets which part of it when."""
