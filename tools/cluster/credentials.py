"""Keys, certificates and tokens of an instance, and the kubeconfig files made from them."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from . import commands
from .errors import ClusterError
from .paths import Instance

# Token users, and whether the audit log leaves them out (the parts of Kubernetes itself).
ADMIN = "admin"
CONTROLLERS = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"

_DAYS = "3650"


def kubelet_user(instance: Instance) -> str:
    return f"system:node:{instance.name}"


def users(instance: Instance) -> tuple[str, ...]:
    return (ADMIN, CONTROLLERS, SCHEDULER, kubelet_user(instance))


def ensure(instance: Instance, address: str) -> None:
    """Make what is missing. The keys stay over "down" and "up": service accounts' tokens and the
    person's kubeconfig go on to work."""
    pki = instance.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    if not (pki / "ca.crt").exists():
        _certificate(
            pki,
            "ca",
            "jhub-safety",
            ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"],
            None,
        )
    names = f"IP:127.0.0.1,IP:{address},DNS:localhost,DNS:kubernetes.default.svc"
    stamp = pki / "server.names"
    if not stamp.exists() or stamp.read_text() != names:
        # One certificate for the API server, the kubelet and etcd: they trust the same authority.
        _certificate(
            pki,
            "server",
            "jhub-safety-server",
            [f"subjectAltName={names}", "extendedKeyUsage=serverAuth,clientAuth"],
            "ca",
        )
        stamp.write_text(names)
    if not (pki / "client.crt").exists():
        # The API server's own, towards the kubelet and etcd.
        _certificate(pki, "client", "kube-apiserver", ["extendedKeyUsage=clientAuth"], "ca")
    if not (pki / "sa.pub").exists():
        what = "Making the service accounts' key"
        key = pki / "sa.key"
        commands.output(
            ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048",
             "-out", key], what=what)  # fmt: skip
        commands.output(
            ["openssl", "pkey", "-in", key, "-pubout", "-out", pki / "sa.pub"], what=what
        )
    if not (pki / "tokens.csv").exists():
        # All are administrators by their group; the names tell them apart in the audit log.
        text = "".join(
            f'{secrets.token_urlsafe(32)},{user},{user},"system:masters"\n'
            for user in users(instance)
        )
        _write_private(pki / "tokens.csv", text)


def _certificate(
    pki: Path, name: str, subject: str, extensions: list[str], issuer: str | None
) -> None:
    argv: list[str | Path] = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", _DAYS, "-subj", f"/CN={subject}", "-batch",
        "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.crt",
    ]  # fmt: skip
    if issuer:
        argv += ["-CA", pki / f"{issuer}.crt", "-CAkey", pki / f"{issuer}.key"]
        extensions = ["basicConstraints=critical,CA:FALSE", *extensions]
    for extension in extensions:
        argv += ["-addext", extension]
    commands.output(argv, what=f"Making the certificate {name}")


def token(instance: Instance, user: str) -> str:
    for line in (instance.pki / "tokens.csv").read_text().splitlines():
        value, name, *_ = line.split(",")
        if name == user:
            return value
    raise ClusterError(f"{instance.pki / 'tokens.csv'} has no token for {user}")


def component_kubeconfig(instance: Instance, component: str) -> Path:
    return instance.pki / f"{component}.kubeconfig"


def write_kubeconfigs(instance: Instance, server: str) -> None:
    """The person's kubeconfig, and one for each part that talks to the API server."""
    parts = {
        component_kubeconfig(instance, "kube-controller-manager"): CONTROLLERS,
        component_kubeconfig(instance, "kube-scheduler"): SCHEDULER,
        component_kubeconfig(instance, "kubelet"): kubelet_user(instance),
        instance.kubeconfig: ADMIN,
    }
    for path, user in parts.items():
        _write_private(path, _kubeconfig(instance, server, user))


def _kubeconfig(instance: Instance, server: str, user: str) -> str:
    authority = base64.b64encode((instance.pki / "ca.crt").read_bytes()).decode()
    context = f"jhub-safety-{instance.name}"
    # JSON is YAML too, and needs no library.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "clusters": [
                {
                    "name": context,
                    "cluster": {"server": server, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": user, "user": {"token": token(instance, user)}}],
        },
        indent=2,
    )


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    # Private from the first moment, not only after a chmod.
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    unfinished.rename(path)
