"""The demo of `make demo` and the recording in README.md."""
