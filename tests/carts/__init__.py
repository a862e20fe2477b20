"""Carts whose SKUs are in several partitions."""
