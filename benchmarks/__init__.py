"""What sandpool costs, beside its floor from the same run. `make bench` runs it; see docs/benchmarks.md."""
