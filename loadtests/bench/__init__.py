"""Measures every figure that FlashHold is held to, and the designs that it is compared with."""
