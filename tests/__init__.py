"""The tests of detrcli."""
