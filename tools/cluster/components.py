"""The command lines of the node's processes."""

from __future__ import annotations

from pathlib import Path

from . import configs, credentials
from .paths import Instance, binaries_dir

# In no other network of a usual machine; nothing routes it, as no kube-proxy runs.
_SERVICES = "10.96.0.0/16"
PORTS_ON_LOOPBACK = ("etcd", "etcd-peer", "api")
KUBELET_PORT = "kubelet"


def server_url(ports: dict[str, int]) -> str:
    return f"https://127.0.0.1:{ports['api']}"


def containerd(instance: Instance) -> list[str | Path]:
    return ["containerd", "--config", instance.configs / configs.CONTAINERD]


def etcd(instance: Instance, ports: dict[str, int]) -> list[str | Path]:
    client, peer = (f"https://127.0.0.1:{ports[name]}" for name in ("etcd", "etcd-peer"))
    pki = instance.pki
    argv: list[str | Path] = [
        binaries_dir() / "etcd",
        f"--name={instance.name}",
        f"--data-dir={instance.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={instance.name}={peer}",
        # Only a power cut can lose what the kernel has not written yet; ending it cannot.
        "--unsafe-no-fsync=true",
        "--log-level=warn",
    ]
    for prefix in ("", "peer-"):
        argv += [
            f"--{prefix}cert-file={pki / 'server.crt'}",
            f"--{prefix}key-file={pki / 'server.key'}",
            f"--{prefix}trusted-ca-file={pki / 'ca.crt'}",
            f"--{prefix}client-cert-auth=true",
        ]
    return argv


def apiserver(instance: Instance, ports: dict[str, int], address: str) -> list[str | Path]:
    pki = instance.pki
    return [
        binaries_dir() / "kube-apiserver",
        f"--etcd-servers=https://127.0.0.1:{ports['etcd']}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'client.crt'}",
        f"--etcd-keyfile={pki / 'client.key'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['api']}",
        f"--cert-dir={pki}",
        f"--tls-cert-file={pki / 'server.crt'}",
        f"--tls-private-key-file={pki / 'server.key'}",
        # The default is looked for on the default route, which a machine may lack.
        f"--advertise-address={address}",
        "--endpoint-reconciler-type=none",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--service-cluster-ip-range={_SERVICES}",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'client.crt'}",
        f"--kubelet-client-key={pki / 'client.key'}",
        f"--audit-policy-file={instance.configs / configs.AUDIT_POLICY}",
        f"--audit-log-path={instance.audit_log}",
        "--audit-log-format=json",
        # Tests count calls right after making them.
        "--audit-log-mode=blocking",
        "--profiling=false",
    ]


def controller_manager(instance: Instance) -> list[str | Path]:
    config = credentials.component_kubeconfig(instance, "kube-controller-manager")
    return [
        binaries_dir() / "kube-controller-manager",
        f"--kubeconfig={config}",
        # One only: waiting for an election would cost 15 s after an unclean end.
        "--leader-elect=false",
        "--secure-port=0",
        f"--root-ca-file={instance.pki / 'ca.crt'}",
        f"--service-account-private-key-file={instance.pki / 'sa.key'}",
        "--enable-hostpath-provisioner=true",
        # The default of 15 s is what a claim waits for in the worst case.
        "--pvclaimbinder-sync-period=2s",
        "--profiling=false",
    ]


def scheduler(instance: Instance) -> list[str | Path]:
    return [
        binaries_dir() / "kube-scheduler",
        f"--kubeconfig={credentials.component_kubeconfig(instance, 'kube-scheduler')}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]


def kubelet(instance: Instance, address: str) -> list[str | Path]:
    return [
        binaries_dir() / "kubelet",
        f"--kubeconfig={credentials.component_kubeconfig(instance, 'kubelet')}",
        f"--config={instance.configs / configs.KUBELET}",
        f"--hostname-override={instance.name}",
        # Refused when it is a loopback address: hence the bridge's.
        f"--node-ip={address}",
    ]
