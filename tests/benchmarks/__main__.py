"""`make bench`: the sidecar beside its peers, in the same run. `make bench ARGS="events --quick"` for a part of it."""

from __future__ import annotations

import argparse
import importlib

PARTS = ("results", "events", "supervision", "context")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} (all)")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, not how fast it is")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in arguments.parts or PARTS:
        importlib.import_module(f"tests.benchmarks.bench_{part}").run(arguments.quick)


if __name__ == "__main__":
    main()
