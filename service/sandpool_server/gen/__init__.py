"""The server's generated code: services and descriptors of both contracts."""
