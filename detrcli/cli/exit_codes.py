"""What `detr` exits with. 0 says that all is well."""

SOME_FAILED = 1
"""Some images could not be read; the others are done."""

UNUSABLE = 2
"""Wrong usage, no such model or device, nothing to look at, or an output that cannot be written."""

INTERRUPTED = 130
"""Stopped by Ctrl-C."""
