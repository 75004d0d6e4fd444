"""The hub's database: what it says of servers and their claims; snapshots, restoring, moving."""
