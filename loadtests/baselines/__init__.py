"""The same drop, written as a team would write it without FlashHold: small FastAPI services over Postgres.

All three speak as much of FlashHold's HTTP contract as a drop needs (hold, commit, release), so that one crowd can
shop at any of them. They differ in a few lines each: how they take the units.
"""
