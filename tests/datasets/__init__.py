"""Tests of labelled data sets."""
