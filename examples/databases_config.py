"""What to add to the configuration of a hub for a private database beside each lab.

Take the entries that you want: one is enough, and its name alone as well. See docs/databases.md;
helm/databases-values.yaml has the same as Helm values.
"""

import jhub_safety

c = get_config()  # noqa: F821 - put here by the program that reads this file

c.SafeKubeSpawner.databases = [
    # "psql" in the lab works with nothing more than this.
    "postgres",
    # The same with more said. A second server of a kind needs a name and a port of its own; the
    # first of a kind is the one that PGHOST and the like name.
    {
        "kind": "postgres",
        "name": "projects",
        "image": "postgres:18",
        "port": 5433,
        "capacity": "5Gi",
        "class": "standard",
        "database": "projects",
        "resources": {
            "requests": {"memory": "128Mi", "cpu": "0.01"},
            "limits": {"memory": "1Gi", "cpu": "1"},
        },
        "args": ["-c", "max_connections=20", "-c", "statement_timeout=60s"],
        # A course: more room for its group, and most for the one who teaches it.
        "overrides": {
            "groups": {"databases-2026": {"capacity": "10Gi"}},
            "users": {"ada": {"capacity": "20Gi"}},
        },
    },
    # "mariadb" and "mysql" in the lab. Both by default on port 3306.
    {"kind": "mariadb", "image": "mariadb:11.4", "capacity": "2Gi"},
    {"kind": "mysql", "image": "mysql:8.4", "port": 3307, "run_as": "image"},
    # Kinds of your own, by dotted path: redis_database.py and mongodb_database.py lie beside this
    # file. REDIS_URL and MONGODB_URI are set in the lab.
    "redis_database.Redis",
    {"kind": "mongodb_database.MongoDB", "capacity": "4Gi", "startup_deadline": 90},
]

# Homes and the databases' folders are given to the lab's user by an init container of this image.
c.SafeKubeSpawner.ownership_image = "busybox:1.37"
# A shared folder, too, as long as it still belongs to root.
c.SafeKubeSpawner.ownership_paths = ["/home/jovyan/shared"]

# The one call. It may stand anywhere; settings are checked when all configuration is loaded.
jhub_safety.setup(c)
