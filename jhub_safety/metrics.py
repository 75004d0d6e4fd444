"""Counters on the hub's own /hub/metrics page (prometheus_client comes with JupyterHub)."""

from __future__ import annotations

from prometheus_client import Counter

#: Never a user or claim name in a label: unbounded, and personal.
HOMES = Counter(
    "jhub_safety_homes_total",
    "Decisions about a user's home at a spawn, by verdict and row of the decision table.",
    ["verdict", "row", "mode"],
)
CLAIM_LISTS = Counter(
    "jhub_safety_claim_lists_total",
    "Complete listings of claims asked of the API server, by outcome.",
    ["outcome"],
)
