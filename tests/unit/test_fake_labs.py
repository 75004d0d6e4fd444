"""The labs of the benchmarks are what KubeSpawner would have asked for."""

from __future__ import annotations

import json

import kubernetes_asyncio.config
import pytest
from jupyterhub.objects import Hub
from jupyterhub.orm import Server, Spawner
from kubernetes_asyncio.client import ApiClient
from kubespawner import KubeSpawner
from traitlets.config import Config

from tools.cluster.kwok.labs import FAKE, FakeLab

MEMORY = {"mem_guarantee": "1G", "mem_limit": "2G"}
STORAGE = {
    "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}],
    "volume_mounts": [{"name": "home", "mountPath": "/home/jovyan"}],
}


class User:
    """What KubeSpawner asks of a user."""

    id = 1

    def __init__(self, name):
        self.name = self.escaped_name = name
        self.url = f"/user/{name}/"
        self.spawners = {}


async def asked_for(monkeypatch, user, server):
    """KubeSpawner's own manifest and state."""
    # It looks for a cluster when it is made; nothing is sent.
    monkeypatch.setattr(kubernetes_asyncio.config, "load_incluster_config", lambda: None)
    image = {"image": "jhub-safety/lab:1", "cmd": ["jupyterhub-singleuser"]}
    row = Server(proto="http", ip="", port=0, base_url=f"/user/{user}/", cookie_name="")
    spawner = KubeSpawner(
        hub=Hub(),
        user=User(user),
        orm_spawner=Spawner(name=server, server=row),
        config=Config(KubeSpawner=MEMORY | STORAGE | image),
        namespace="labs",
        _mock=True,
    )
    spawner._pvc_exists = True
    client = ApiClient()
    try:
        manifest = client.sanitize_for_serialization(await spawner.get_pod_manifest())
    finally:
        await client.close()
        await spawner.api.api_client.close()
    return manifest, spawner.get_state()


@pytest.mark.parametrize("server", ["", "gpu"], ids=["default", "named"])
@pytest.mark.parametrize("user", ["alice", "erin@school.edu"])
async def test_is_as_kubespawner_asks_for_it(monkeypatch, user, server):
    """Names, labels, annotations, variables, claim; what a listing is made of."""
    real, state = await asked_for(monkeypatch, user, server)
    lab = FakeLab(user, server, hub="hub")
    fake = lab.manifest(["fake-0"])
    assert lab.name == real["metadata"]["name"] == state["pod_name"]
    assert lab.claim == state["pvc_name"]
    assert lab.labels == real["metadata"]["labels"] | FAKE | {"jhub-safety/hub": "hub"}
    assert lab.annotations.keys() == real["metadata"]["annotations"].keys()
    assert lab.annotations["hub.jupyter.org/username"] == user
    assert lab.annotations.get("hub.jupyter.org/servername", "") == server
    assert fake["spec"]["volumes"] == real["spec"]["volumes"]
    (real_notebook,) = real["spec"]["containers"]
    notebook, _sidecar = fake["spec"]["containers"]
    names = {variable["name"] for variable in real_notebook["env"]}
    assert {variable["name"] for variable in notebook["env"]} == names
    assert len(names) == 22
    assert notebook["name"] == real_notebook["name"]
    assert notebook["ports"] == real_notebook["ports"]


@pytest.mark.parametrize("node", [None, 7])
def test_only_a_fake_node_may_get_it(node):
    """No kubelet of a real node ever sees one."""
    spec = FakeLab("alice", node=node).manifest(["fake-0", "fake-1", "fake-2"])["spec"]
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "kwok.x-k8s.io/node", "operator": "In", "values": ["fake"]}
    ]
    assert spec.get("nodeName") == (None if node is None else "fake-1")


def test_is_sent_as_json():
    """Nothing in it needs a typed model."""
    assert json.loads(json.dumps(FakeLab("alice").manifest(["fake-0"])))["kind"] == "Pod"
