"""Figures, not tests: each compares with a floor measured in the same run."""
