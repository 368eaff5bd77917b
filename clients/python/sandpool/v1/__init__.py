"""The messages of sandpool's public contract."""
