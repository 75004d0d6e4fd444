"""A small JupyterHub on Kubernetes with jhub-safety, without Helm. Copy it and change it.

The hub runs as a process that can reach the API server and the pods, for example on a node:

    export KUBECONFIG=...          # whom the hub acts as; inside a pod leave it out
    export HUB_IP=10.0.0.5         # an address of this machine that pods can reach
    export HUB_PASSWORD=...        # what everybody logs in with, until you choose an authenticator
    jupyterhub -f jupyterhub_config.py

With Zero to JupyterHub do not use this file: see helm/values.yaml.
"""

import os

import jhub_safety

c = get_config()

# -- Who may log in. The dummy authenticator is for trying things out only.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["HUB_PASSWORD"]
c.Authenticator.allow_all = True

# -- The hub. Labs call it on this address.
c.JupyterHub.hub_ip = os.environ["HUB_IP"]
# Labs run in the cluster: a hub that stops must leave them alone.
c.JupyterHub.cleanup_servers = False

# -- The labs. These are KubeSpawner's own settings; jhub-safety inherits all of them.
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = os.environ.get("HUB_NAMESPACE", "jhub")
c.KubeSpawner.image = os.environ.get("LAB_IMAGE", "quay.io/jupyter/base-notebook")
c.KubeSpawner.default_url = "/lab"
c.KubeSpawner.uid = 1000
c.KubeSpawner.fs_gid = 100

# -- The homes: one claim for each user. {pvc_name} is the claim that jhub-safety has settled.
# pvc_name_template is left unset on purpose: names from jhub-safety never clash and never change.
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "10Gi"
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
c.KubeSpawner.volumes = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
]
c.KubeSpawner.volume_mounts = [
    {"name": "home", "mountPath": "/home/jovyan"},
]

# -- jhub-safety. On a hub that has users begin with the four settings of docs/install.md, step 4:
# homes and sessions "observe", DatabaseGuard and DatabaseBackup not enabled. Then nothing is
# changed, and the log says what would be done.
c.SafeKubeSpawner.homes = "enforce"
# The hub's own name, written as a label on its claims. Choose it once.
c.SafeKubeSpawner.hub_name = "jhub"
# By which rules this hub named claims in the past, if any. Only what it really ran: the rules
# matter for claims without owner annotations alone. Leave it empty when in doubt.
c.SafeKubeSpawner.earlier_generations = []

# What to do about a lab that runs and that no session names, for example after a lost database:
# "report" it, "relink" it to its user while it goes on running, or "delete" it after a day.
c.SessionReconciler.orphans = "report"

# The one call. It may stand anywhere; settings are checked when all configuration is loaded.
jhub_safety.setup(c)
