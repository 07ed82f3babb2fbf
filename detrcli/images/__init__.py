"""From what a user named to the pixels that a network takes."""
