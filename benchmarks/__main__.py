"""Run the benchmarks with `python -m benchmarks`: print a table and write the results as JSON."""

import argparse
import io
import json
import os
import platform
import pstats
import sys
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cases import Setting, all_cases
from benchmarks.server import Servers
from benchmarks.stats import Result

RESULTS = Path(__file__).parent / "results"
IMAGE = "python:3.11-slim"
_TOP = 30


def main() -> int:
    """Run the selected cases and return the exit code.

    The exit code is 1 if a case failed. A missed goal is a result and no failure.
    """
    cases = all_cases()
    parser = argparse.ArgumentParser(description="Measure the performance of sandpool on the engine at $DOCKER_HOST.")
    parser.add_argument("cases", nargs="*", choices=[[], *cases], help="cases to run; default: all")
    parser.add_argument("--image", default=IMAGE, help=f"image of the containers; default: {IMAGE}")
    parser.add_argument(
        "--profile", action="store_true", help="profile the event loops of the servers, which slows them down"
    )
    args = parser.parse_args()
    directory = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    results: list[Result] = []
    failed: list[str] = []
    for name in args.cases or cases:
        began = time.perf_counter()
        print(f"measuring {name} …", flush=True)
        profiles = directory / name if args.profile else None
        if profiles is not None:
            profiles.mkdir(parents=True)
        try:
            # Each case has its own servers, so that no case affects another.
            results += cases[name](Setting(Servers(profiles), args.image))
        except Exception:  # Any failure must not lose the results of the other cases.
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"  done in {time.perf_counter() - began:.0f} s", flush=True)
        if profiles is not None:
            print(f"  profiles: {write_profiles(profiles)}")
    print_table(results)
    print(f"results: {write_results(directory.with_suffix('.json'), results, args.image, args.profile)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def print_table(results: list[Result]) -> None:
    """Print one line for each result."""
    print(f"\n{'operation':<24} {'':>9} {'':<9} {'baseline':<24} {'':>9}   {'result':>7}   goal")
    for result in results:
        print(
            f"{result.name:<24} {result.measured:>9} {result.unit:<9} {result.floor_name:<24} {result.floor:>9}   "
            f"{result.value:>7}   {result.goal} {'met' if result.met else 'MISSED'}"
        )


def write_profiles(directory: Path) -> Path:
    """Replace each profile with a text file of its top functions. Returns the directory."""
    for profile in sorted(directory.glob("*.prof")):
        text = io.StringIO()
        stats = pstats.Stats(str(profile), stream=text).strip_dirs()
        for order in ("tottime", "cumulative"):
            stats.sort_stats(order).print_stats(_TOP)
        profile.with_suffix(".txt").write_text(text.getvalue())
        profile.unlink()
    return directory


def write_results(file: Path, results: list[Result], image: str, profiled: bool) -> Path:
    """Write the results, with a description of the machine, to a JSON file. Returns the file."""
    file.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    content = {
        "time": datetime.now(UTC).isoformat(),
        "image": image,
        "machine": machine,
        "profiled": profiled,
        "results": [asdict(result) for result in results],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")
    return file


if __name__ == "__main__":
    sys.exit(main())
