"""Claims that hold users' files: their names, homes, and whose they are."""
