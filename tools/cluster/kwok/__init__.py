"""kwok plays nodes and their kubelets: thousands of labs that run nothing (see ../README.md)."""

from .crowd import TABLE, Crowd
from .labs import COMPONENT, FakeLab
from .running import playing

__all__ = ["COMPONENT", "TABLE", "Crowd", "FakeLab", "playing"]
