"""Tests of runs over whole folders."""
