"""The configuration files of containerd, CNI, the kubelet and the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import credentials, debian
from .network import pod_subnet
from .paths import Instance
from .recipes import PAUSE

AUDIT_POLICY = "audit-policy.json"
CONTAINERD = "containerd.toml"
KUBELET = "kubelet.json"
_AUDITED = ("pods", "persistentvolumeclaims", "secrets", "events", "services")


def write(instance: Instance, address: str, kubelet_port: int) -> None:
    instance.configs.mkdir(parents=True, exist_ok=True)
    _json(instance.configs / AUDIT_POLICY, _audit_policy(instance))
    _json(instance.configs / KUBELET, _kubelet(instance, address, kubelet_port))
    (instance.configs / CONTAINERD).write_text(_containerd(instance))
    cni = instance.configs / "cni"
    cni.mkdir(exist_ok=True)
    _json(cni / "10-bridge.conflist", _cni(instance, address))


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _audit_policy(instance: Instance) -> dict[str, Any]:
    """Who asked for what: one entry for each finished call that is not Kubernetes' own."""
    own = ["system:apiserver", *(u for u in credentials.users(instance) if u != credentials.ADMIN)]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            {"level": "None", "users": own},
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {
                "level": "Metadata",
                # The core group; "pods/*" takes in exec, log and status.
                "resources": [
                    {"group": "", "resources": [*_AUDITED, *(f"{r}/*" for r in _AUDITED)]},
                    {"group": "events.k8s.io", "resources": ["events"]},
                ],
            },
            {"level": "None"},
        ],
    }


def _kubelet(instance: Instance, address: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "port": port,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "tlsCertFile": str(instance.pki / "server.crt"),
        "tlsPrivateKeyFile": str(instance.pki / "server.key"),
        # Pods reach this port: only the API server's certificate may use it.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(instance.pki / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{instance.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.cgroup}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # Lowering it needs a capability that containers and some machines lack.
        "oomScoreAdj": 0,
        # Nothing listens there, so that a look-up fails at once instead of after a timeout:
        # the cluster has no DNS.
        "clusterDNS": [address],
        "clusterDomain": "cluster.local",
        "makeIPTablesUtilChains": False,
        "maxPods": 250,
        "registerNode": True,
        # There is no registry to fetch an image from again: never clean any up.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        # A person's disk is often fuller than what counts as pressure by default.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    }


def _containerd(instance: Instance) -> str:
    return f"""\
version = 2
root = {_toml(instance.containerd_root)}
state = {_toml(instance.containerd_state)}
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
  address = {_toml(instance.containerd_socket)}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  # Without CAP_SYS_RESOURCE runc fails to lower a score: "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {_toml(debian.CNI_PLUGINS)}
    conf_dir = {_toml(instance.configs / "cni")}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _toml(value: Path) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(str(value))


def _cni(instance: Instance, address: str) -> dict[str, Any]:
    return {
        "cniVersion": "0.4.0",
        "name": instance.bridge,
        "plugins": [
            {
                "type": "bridge",
                "bridge": instance.bridge,
                # The bridge has its address already. With isGateway the plugin would also turn on
                # forwarding between all networks of the machine.
                "isGateway": False,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(pod_subnet(address)), "gateway": address}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
