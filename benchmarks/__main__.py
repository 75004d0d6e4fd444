"""``make bench``: all benchmarks, most of them on a cluster."""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import claims, databases, homes, ownership, rebuild, sessions, snapshots
from tools.cluster import ClusterError, Progress, ensure_up


def main() -> int:
    """Bring the cluster up and run every benchmark. Gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "only",
        nargs="?",
        choices=("homes", "claims", "sessions", "databases", "ownership", "rebuild", "snapshots"),
        help="default: all",
    )
    parser.add_argument("--keep", action="store_true", help="keep the 10,000 labs for next time")
    options = parser.parse_args()
    progress = Progress()
    if options.only in (None, "ownership"):
        ownership.run()
    if options.only in (None, "rebuild"):
        rebuild.run()
    if options.only in ("ownership", "rebuild"):
        return 0
    try:
        if options.only in (None, "snapshots"):
            asyncio.run(snapshots.run())
        if options.only == "snapshots":
            return 0
        cluster = ensure_up("bench", "auto", progress)
        if options.only in (None, "homes"):
            asyncio.run(homes.run(cluster, progress))
        if options.only in (None, "claims"):
            asyncio.run(claims.run(cluster, progress))
        if options.only in (None, "sessions"):
            asyncio.run(sessions.run(cluster, progress, keep=options.keep))
        if options.only in (None, "databases"):
            asyncio.run(databases.run(cluster, progress))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
