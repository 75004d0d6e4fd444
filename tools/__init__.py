"""Programs around the library: set-up, a local Kubernetes, demo and drill."""
