"""Tests of finding, reading and resizing images."""
