"""A slow, obvious FlashHold: the judge of every dispute."""
