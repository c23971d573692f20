"""Training: data sets, augmentation, simulated prompts, losses, and one loop for every method."""
