"""Tests against the packages that people use today, on equal weights."""
