"""Tests of `detrcli.scenes`."""
