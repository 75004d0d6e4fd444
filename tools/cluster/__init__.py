"""A small real Kubernetes on this machine, for the demo, tests and benchmarks: see README.md."""

from .errors import ClusterError
from .info import ClusterInfo, ensure_images, ensure_up, load
from .paths import Instance
from .progress import Progress

__all__ = [
    "ClusterError",
    "ClusterInfo",
    "Instance",
    "Progress",
    "ensure_images",
    "ensure_up",
    "load",
]
