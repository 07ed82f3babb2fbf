"""Evaluation of detectors on labeled datasets."""
