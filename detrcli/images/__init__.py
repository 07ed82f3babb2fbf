"""Images: where they come from, decoding, resizing, and drawing on them."""
