"""The papers as PyTorch modules; they import only torch."""
