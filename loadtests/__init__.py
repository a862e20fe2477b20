"""What FlashHold does under load, and what the usual designs do under the same load."""
