"""Text in XML."""

import re

INVALID = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot represent (section 2.2), and carriage returns, which parsers change (2.11)."""


def xml_text(text: str) -> str:
    """Escape characters that XML cannot represent, such as control characters, as in Python."""
    return INVALID.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
