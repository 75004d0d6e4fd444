"""``make bench``: all benchmarks, on the test cluster."""

from __future__ import annotations

import asyncio
import sys

from benchmarks import homes
from tools.cluster import ClusterError, Progress, ensure_up


def main() -> int:
    """Bring the cluster up and run every benchmark. Gives the exit code."""
    progress = Progress()
    try:
        cluster = ensure_up("bench", "auto", progress)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    asyncio.run(homes.run(cluster, progress))
    return 0


if __name__ == "__main__":
    sys.exit(main())
