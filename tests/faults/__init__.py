"""Accidents on purpose: what clients saw is recorded, and a linear checker holds it against the ledger."""
