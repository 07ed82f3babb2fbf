"""Tests of labeled datasets."""
