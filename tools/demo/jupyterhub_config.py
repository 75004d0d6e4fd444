"""Configuration of the demo's and the drill's hub; see examples/ for one to copy.

Where the cluster is and what it offers comes from the JSON file that JHUB_SAFETY_DEMO names
(tools/demo/settings.py writes it).
"""

import json
import os
from pathlib import Path

c = get_config()
settings = json.loads(Path(os.environ["JHUB_SAFETY_DEMO"]).read_text())

c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = settings["password"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = set(settings["admins"])
c.JupyterHub.allow_named_servers = True
# The labs live in the cluster: a hub that stops or crashes must leave them alone.
c.JupyterHub.cleanup_servers = False

c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = settings["namespace"]
c.KubeSpawner.image = settings["lab_image"]
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.default_url = "/lab"
c.KubeSpawner.start_timeout = 120
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 100
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.cpu_guarantee = 0.05
c.KubeSpawner.mem_guarantee = "64M"
# Two cores and a lab's first start on a cold disk: a poll's answer may take a while.
c.KubeSpawner.http_timeout = 60

c.KubeSpawner.storage_pvc_ensure = True
if settings["storage_class"]:
    c.KubeSpawner.storage_class = settings["storage_class"]
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
c.KubeSpawner.storage_capacity = "1Gi"
c.KubeSpawner.volumes = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
    # Lives and dies with the pod: the drill reads it to see whether a lab went on running.
    {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
]
c.KubeSpawner.volume_mounts = [
    {"name": "home", "mountPath": "/home/jovyan"},
    {"name": "memory", "mountPath": "/memory"},
]
# A fresh volume of the local storage class belongs to root, as on many NFS servers.
if settings["databases"] is not None:
    c.SafeKubeSpawner.ownership = "always"
    c.SafeKubeSpawner.ownership_image = settings["init_image"]
    c.SafeKubeSpawner.databases = settings["databases"]
else:
    c.KubeSpawner.init_containers = [
        {
            "name": "own-home",
            "image": settings["init_image"],
            "imagePullPolicy": "IfNotPresent",
            "command": ["chown", "1000:100", "/home/jovyan"],
            "securityContext": {
                "runAsUser": 0,
                "runAsNonRoot": False,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
            },
            "volumeMounts": [{"name": "home", "mountPath": "/home/jovyan"}],
        }
    ]

if settings["safe"]:
    import jhub_safety

    jhub_safety.setup(c)
