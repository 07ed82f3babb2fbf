"""Tests of `detrcli.backends`."""
