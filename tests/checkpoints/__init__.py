"""Tests of `detrcli.checkpoints`."""
