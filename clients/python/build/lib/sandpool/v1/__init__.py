"""The generated stubs of sandpool's public contract."""
