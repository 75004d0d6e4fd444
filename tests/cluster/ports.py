"""Ports of hubs that run at the same time, in several processes of pytest.

The kernel gives a port that nobody has just now, also that of a hub which is down for a moment and
comes back to it. So each worker has a block of its own, from which the kernel gives nothing.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

from tools.demo.hub import free_ports

#: Below the ports of a cluster's services, which begin at 30000.
FIRST, EACH = 20000, 1000
_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _block() -> range:
    """Empty without workers, and where the kernel might choose from it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not worker.isdecimal() or not _KERNEL.exists():
        return range(0)
    start = FIRST + EACH * int(worker)
    lowest = min(int(_KERNEL.read_text().split()[0]), 30000)
    return range(start, start + EACH) if start + EACH <= lowest else range(0)


def _shuffled() -> Iterator[int]:
    """Each once. In any order: another run of pytest may have the same block."""
    block = _block()
    return iter(random.sample(block, len(block)))


_left = _shuffled()


def own_ports(*addresses: str) -> list[int]:
    """One for each, given to nobody before; of the kernel's choice where there are none left."""
    found = []
    for address in addresses:
        port = next((one for one in _left if _is_free(address, one)), None)
        if port is None:
            return free_ports(*addresses)
        found.append(port)
    return found


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        # As a server binds: one that has just ended is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
