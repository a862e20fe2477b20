"""One deployment of several partitions, on one server."""
