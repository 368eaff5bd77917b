"""Benchmarks. Each result is compared with a baseline of the same run. Run them with `make bench`.

See docs/explanation/performance.md.
"""
