"""Sessions: what the hub's record of a server and the lab in the cluster say of each other."""
