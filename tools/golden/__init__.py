"""Names that earlier releases of KubeSpawner gave to claims, by running them."""
