"""How well a detector does on a dataset."""
