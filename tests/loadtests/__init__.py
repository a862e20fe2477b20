"""The load tests tested: their counting, their baselines, and small runs of each."""
