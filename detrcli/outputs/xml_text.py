"""Text that XML can hold."""

import re

IMPOSSIBLE = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write (section 2.2), and carriage returns, which readers take for line feeds (2.11)."""


def xml_text(text: str) -> str:
    """The text with what XML cannot hold, as control characters, escaped as Python does."""
    return IMPOSSIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
