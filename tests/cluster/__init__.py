"""What holds on a Redis Cluster of real servers."""
