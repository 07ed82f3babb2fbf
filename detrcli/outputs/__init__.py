"""Outputs of a run: output formats, per-image results, and the journal."""
