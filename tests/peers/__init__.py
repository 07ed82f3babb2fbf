"""Comparisons with other packages on the same weights."""
