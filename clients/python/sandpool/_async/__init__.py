"""The client, the handles of sandboxes and the parts of a handle."""
