"""The services of the public contract; their messages are in `sandpool.v1`."""
