"""Training: matching, losses, augmentation, optimization, and the loop."""
