"""Training, and the rendered scenes to train on."""
