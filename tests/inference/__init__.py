"""Tests of `detrcli.inference.backend`."""
