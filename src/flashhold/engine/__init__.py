"""Speaks Redis: commands become batches, batches one script call each, replies outcomes."""
