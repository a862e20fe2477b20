"""Rehearsals: play recorded orders through a running FlashHold, then prove that every unit is where it should be."""
