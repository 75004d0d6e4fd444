"""The hub of `make outage`: jhub-safety as it is installed, and servers that cost nothing.

What differs from a hub of yours is at the end: only a few users get a lab in the cluster. The
servers of the others are *played*: JupyterHub's own login and start, the home decided by the
library on the real cluster, the pod's manifest made; and then, in place of the pod, a web server
that all of them share. Which claim the pod would have mounted is written down.
"""

import json
import os
from pathlib import Path

from jupyterhub.auth import DummyAuthenticator

import jhub_safety
from jhub_safety.spawner import SafeKubeSpawner

c = get_config()
settings = json.loads(Path(os.environ["JHUB_SAFETY_OUTAGE"]).read_text())
starts = Path(settings["starts"]).open("a", buffering=1)  # noqa: SIM115 - as long as the hub runs


class CaseKeepingAuthenticator(DummyAuthenticator):
    """Anna.Lee and anna.lee are two people here; JupyterHub itself would make them one."""

    def normalize_username(self, username: str) -> str:
        return username


class PlayingSpawner(SafeKubeSpawner):
    """Starts real labs for those who have one, and plays the servers of the others."""

    played = False

    async def _start(self) -> str:
        if self.user.name in settings["real"]:
            return await super()._start()
        await self.load_user_options()
        pod = self.api.api_client.sanitize_for_serialization(await self.get_pod_manifest())
        volumes = pod["spec"].get("volumes", [])
        mounted = [
            one["persistentVolumeClaim"] for one in volumes if "persistentVolumeClaim" in one
        ]
        start = {"user": self.user.name, "claims": [one["claimName"] for one in mounted]}
        starts.write(json.dumps(start) + "\n")
        self._nothing_started, self.played = False, True
        return settings["responder"]

    async def poll(self) -> int | None:
        return None if self.played else await super().poll()

    async def stop(self, now: bool = False) -> None:
        if not self.played:
            await super().stop(now=now)
        self.played = False


c.JupyterHub.authenticator_class = CaseKeepingAuthenticator
c.DummyAuthenticator.password = settings["password"]
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = PlayingSpawner
c.JupyterHub.db_url = settings["db_url"]
c.JupyterHub.cleanup_servers = False

c.KubeSpawner.namespace = settings["namespace"]
c.KubeSpawner.image = settings["image"]
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.start_timeout = 120
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 100
c.KubeSpawner.cpu_guarantee = 0.01
c.KubeSpawner.mem_guarantee = "8M"
c.KubeSpawner.storage_pvc_ensure = True
if settings["storage_class"]:
    c.KubeSpawner.storage_class = settings["storage_class"]
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
c.KubeSpawner.storage_capacity = "1Gi"
c.KubeSpawner.volumes = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
    {"name": "pages", "emptyDir": {}},
]
c.KubeSpawner.volume_mounts = [
    {"name": "home", "mountPath": "/home/jovyan"},
    {"name": "pages", "mountPath": "/pages"},
]
# A lab of 2 MB, up in a second: it mounts the home, and gives out the files in it.
c.KubeSpawner.cmd = [
    "sh",
    "-c",
    (
        'at="/pages$JUPYTERHUB_SERVICE_PREFIX"; mkdir -p "$at"; ln -s /home/jovyan "$at/files"; '
        'echo "a real lab" >"$at/index.html"; trap exit TERM; httpd -f -p 8888 -h /pages & wait'
    ),
    "lab",
]
c.SafeKubeSpawner.ownership = "always"
c.SafeKubeSpawner.ownership_image = settings["image"]

# All else of the library is as it is installed: it looks every minute, and recovers by itself.
c.DatabaseGuard.interval = settings["interval"]
c.DatabaseBackup.destination = settings["snapshots"]
c.DatabaseBackup.enabled = settings["backup"]

jhub_safety.setup(c)
