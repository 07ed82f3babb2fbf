"""Tests of `detrcli.models`."""
