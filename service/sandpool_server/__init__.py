"""The sandpool server: pools of warm container sandboxes over gRPC."""
