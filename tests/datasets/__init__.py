"""Tests of labelled datasets."""
