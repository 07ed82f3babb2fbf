"""Tests of finding, reading and resizing pictures."""
