"""Rebuild and relink: what the cluster knows, put back into the hub's database."""
