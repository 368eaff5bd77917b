"""The sandpool server: a gRPC service that provides container sandboxes from pools of warm containers."""
