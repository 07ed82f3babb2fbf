"""The papers as PyTorch modules. Nothing here imports anything but torch."""
