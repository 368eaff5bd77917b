"""`python -m benchmarks`: measure, print a table, keep the figures as JSON."""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cases import CASES, Figure
from benchmarks.engine import bare_engine
from benchmarks.server import serving

RESULTS = Path(__file__).parent / "results"
IMAGE = "python:3.11-slim"


def main() -> int:
    """Run the chosen cases. Always 0: a goal that is missed is a finding, not a failure."""
    parser = argparse.ArgumentParser(description="Measure sandpool on the engine that $DOCKER_HOST names.")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="which to run; all without any")
    parser.add_argument("--image", default=IMAGE, help=f"the containers' image, default {IMAGE}")
    args = parser.parse_args()
    figures: list[Figure] = []
    for name in args.cases or CASES:
        print(f"measuring {name} …", flush=True)
        # A server for each case, so that none inherits the load of another.
        with serving() as bench, bare_engine(args.image) as engine:
            figures += CASES[name](bench, engine, args.image)
    print_table(figures)
    print(f"kept in {keep(figures, args.image)}")
    return 0


def print_table(figures: list[Figure]) -> None:
    """One line a figure."""
    print(f"\n{'operation':<20} {'p50 ms':>8} {'p99 ms':>8}   {'against':<22} {'p50 ms':>8}   {'ratio':>7}  goal")
    for figure in figures:
        print(
            f"{figure.name:<20} {figure.operation.p50_ms:>8} {figure.operation.p99_ms:>8}   {figure.floor_name:<22} "
            f"{figure.floor.p50_ms:>8}   {figure.ratio:>7}  {figure.goal} {'met' if figure.met else 'MISSED'}"
        )


def keep(figures: list[Figure], image: str) -> Path:
    """Write the figures with what they were measured on; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    file = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    content = {"time": now.isoformat(), "image": image, "machine": machine, "figures": [asdict(f) for f in figures]}
    file.write_text(json.dumps(content, indent=2) + "\n")
    return file


if __name__ == "__main__":
    sys.exit(main())
