"""What to add to the configuration of a hub for extra volumes. Copy it and change it.

Each user gets their own. See docs/volumes.md; there is the same as Helm values.
"""

import jhub_safety

c = get_config()  # noqa: F821 - put here by the program that reads this file

c.SafeKubeSpawner.extra_pvcs = [
    # Mounted by jhub-safety, beside what the hub mounts itself.
    {
        "name": "data-{owner_slug}-{owner_hash}",
        "capacity": "10Gi",
        "mount_path": "/data",
    },
    # Mounted by the hub's own volumes, below: that is how a second container can have it, too.
    {
        "name": "postgres-{username}",
        "class": "standard",
        "capacity": "1Gi",
        "labels": {"course": "databases-2026"},
        # A course: more room for its groups, and most for the one who teaches it.
        "overrides": {
            "groups": {
                "databases-2026": {"capacity": "5Gi"},
                "databases-projects": {"capacity": "20Gi", "class": "fast"},
            },
            "users": {"ada": {"capacity": "50Gi"}},
        },
    },
]
# Only at the end of what else stands in these two lists.
c.KubeSpawner.volumes = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
    {"name": "db", "persistentVolumeClaim": {"claimName": "postgres-{username}"}},
]
c.KubeSpawner.volume_mounts = [
    {"name": "home", "mountPath": "/home/jovyan"},
    {"name": "db", "mountPath": "/var/lib/postgresql/data", "subPath": "data"},
]

# A larger capacity enlarges claims that exist, ten times at most: that cannot be taken back.
c.SafeKubeSpawner.max_growth = 10
# Homes grow to storage_capacity, too.
c.SafeKubeSpawner.grow_homes = True
# A claim of another class, or with other access modes: "warn" and start, or "refuse".
c.SafeKubeSpawner.extra_pvc_mismatch = "warn"

# The one call. It may stand anywhere; settings are checked when all configuration is loaded.
jhub_safety.setup(c)
