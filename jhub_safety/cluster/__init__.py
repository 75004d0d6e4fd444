"""Talking to the Kubernetes API: I/O and nothing else."""
