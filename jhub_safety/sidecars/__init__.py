"""A private database server beside each lab, whose data outlives it."""
