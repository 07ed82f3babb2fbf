"""How networks learn: matching, losses, and the course of a training."""
