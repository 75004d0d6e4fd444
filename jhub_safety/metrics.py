"""Counters on the hub's own /hub/metrics page (prometheus_client comes with JupyterHub)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

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
SESSIONS = Gauge(
    "jhub_safety_sessions",
    "Servers by verdict of the last pass over sessions, routes and labs.",
    ["verdict"],
)
SESSION_PASSES = Counter(
    "jhub_safety_session_passes_total",
    "Passes over sessions, routes and labs: done, dry, or given up in doubt.",
    ["outcome"],
)
SESSION_PASS_SECONDS = Gauge(
    "jhub_safety_session_pass_seconds", "Duration of the last whole pass, in seconds."
)
SESSION_ACTIONS = Counter(
    "jhub_safety_session_actions_total",
    "What passes and operators did about sessions, by kind and outcome.",
    ["kind", "outcome"],
)
LAB_DOUBTS = Counter(
    "jhub_safety_lab_doubts_total",
    "Looks at a lab that could not be answered for certain; its session stayed as it was.",
)
RESIZES = Counter(
    "jhub_safety_claim_resizes_total",
    "Claims that were to be enlarged at a start: asked for, or failed.",
    ["outcome"],
)
DATABASE_NOTICES = Counter(
    "jhub_safety_database_notices_total",
    "What users were told about their databases, by database and code (docs: Databases).",
    ["database", "code"],
)
DATABASE_GUARD = Counter(
    "jhub_safety_database_guard_total",
    "Looks at the hub's database, by row (docs: The hub's database) and what followed.",
    ["row", "verdict"],
)
SNAPSHOTS = Counter(
    "jhub_safety_snapshots_total",
    "Snapshots of the hub database that were tried: verified, or failed.",
    ["outcome"],
)
SNAPSHOT_TIME = Gauge(
    "jhub_safety_snapshot_time_seconds",
    "When the newest verified snapshot of the hub database was made, as Unix time; 0 for never.",
)
SNAPSHOT_SIZE = Gauge(
    "jhub_safety_snapshot_bytes", "Size of the newest snapshot as it is kept, in bytes."
)
SNAPSHOT_SECONDS = Gauge(
    "jhub_safety_snapshot_seconds", "Duration of the last snapshot with its check, in seconds."
)
