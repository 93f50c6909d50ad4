"""Training: engines that step a model, answer with it, and save its state."""
