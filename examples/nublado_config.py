"""What to add to the configuration of a hub with Nublado's spawner. Copy it and change it.

    export NUBLADO_URL=https://data.example.org    # without /nublado

See docs/nublado.md for what this does and what it leaves to Nublado.
"""

import os

import jhub_safety

c = get_config()  # noqa: F821 - put here by the program that reads this file

# -- The labs: Nublado's own spawner, as Nublado's documentation has it. jhub-safety leaves it as it
# is; homes and starts are Nublado's business.
c.JupyterHub.spawner_class = "rubin.nublado.spawner.NubladoSpawner"
# A user has one lab at Nublado: two servers would share it.
c.JupyterHub.allow_named_servers = False
# A hub that stops must leave labs alone.
c.JupyterHub.cleanup_servers = False

# -- Sessions: the controller is asked instead of the cluster.
c.SessionReconciler.inventory_class = "jhub_safety.sessions.nublado.NubladoInventory"
c.NubladoInventory.controller_url = os.environ["NUBLADO_URL"]
# Whom the hub acts as. This is where Nublado's own spawner finds it, too.
c.NubladoInventory.token_file = "/etc/gafaelfawr/token"  # noqa: S105 - a path
# Begin without any effect: the log says what would be done.
c.SessionReconciler.dry_run = True

# The one call. It may stand anywhere; settings are checked when all configuration is loaded.
jhub_safety.setup(c)
