"""`python -m benchmarks`: measure, print a table, keep the figures as JSON."""

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
from benchmarks.stats import Figure

RESULTS = Path(__file__).parent / "results"
IMAGE = "python:3.11-slim"
_TOP = 30


def main() -> int:
    """Run the chosen cases. 0 also where a goal is missed: that is a finding. 1 where a case could not be measured."""
    cases = all_cases()
    parser = argparse.ArgumentParser(description="Measure sandpool on the engine that $DOCKER_HOST names.")
    parser.add_argument("cases", nargs="*", choices=[[], *cases], help="which to run; all without any")
    parser.add_argument("--image", default=IMAGE, help=f"the containers' image, default {IMAGE}")
    parser.add_argument(
        "--profile", action="store_true", help="profile the servers' event loops; the figures are slower then"
    )
    args = parser.parse_args()
    folder = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    figures: list[Figure] = []
    failed: list[str] = []
    for name in args.cases or cases:
        began = time.perf_counter()
        print(f"measuring {name} …", flush=True)
        profiles = folder / name if args.profile else None
        if profiles is not None:
            profiles.mkdir(parents=True)
        try:
            # Servers for each case, so that none inherits the load of another.
            figures += cases[name](Setting(Servers(profiles), args.image))
        except Exception:  # whatever it is: the figures of the other cases are not lost for it
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"  done in {time.perf_counter() - began:.0f} s", flush=True)
        if profiles is not None:
            print(f"  profiles in {tell_profiles(profiles)}")
    print_table(figures)
    print(f"kept in {keep(folder.with_suffix('.json'), figures, args.image, args.profile)}")
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def print_table(figures: list[Figure]) -> None:
    """One line a figure."""
    print(f"\n{'operation':<24} {'':>9} {'':<9} {'against':<24} {'':>9}   {'result':>7}   goal")
    for figure in figures:
        print(
            f"{figure.name:<24} {figure.measured:>9} {figure.unit:<9} {figure.floor_name:<24} {figure.floor:>9}   "
            f"{figure.result:>7}   {figure.goal} {'met' if figure.met else 'MISSED'}"
        )


def tell_profiles(folder: Path) -> Path:
    """Write the top of each profile as text beside it; returns the folder."""
    for profile in sorted(folder.glob("*.prof")):
        text = io.StringIO()
        stats = pstats.Stats(str(profile), stream=text).strip_dirs()
        for order in ("tottime", "cumulative"):
            stats.sort_stats(order).print_stats(_TOP)
        profile.with_suffix(".txt").write_text(text.getvalue())
        profile.unlink()
    return folder


def keep(file: Path, figures: list[Figure], image: str, profiled: bool) -> Path:
    """Write the figures with what they were measured on; returns the file."""
    file.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
    content = {
        "time": datetime.now(UTC).isoformat(),
        "image": image,
        "machine": machine,
        "profiled": profiled,
        "figures": [asdict(figure) for figure in figures],
    }
    file.write_text(json.dumps(content, indent=2) + "\n")
    return file


if __name__ == "__main__":
    sys.exit(main())
