"""A pod as the API server gets it, and which of its keys Kubernetes would drop without a word."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

from kubernetes_asyncio import client as kube

#: The widely copied recipe, as printed: two keys are indented under the last variable.
RECIPE = {
    "name": "postgres",
    "image": "postgres:15",
    "env": [
        {"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"},
        {
            "name": "POSTGRES_USER",
            "value": "jovyan",
            "securityContext": {"runAsUser": 1000},
            "volumeMounts": [{"name": "postgres-db", "mountPath": "/var/lib/postgresql/data"}],
        },
    ],
}


class _Client(kube.ApiClient):
    """The client's reading and writing, without a connection."""

    def __init__(self) -> None:
        pass


def wire(model: Any) -> Any:
    """As JSON: what is a tuple or a number's subclass in Python is not on the other side."""
    return json.loads(json.dumps(_Client().sanitize_for_serialization(model)))


def pod_of(plain: dict[str, Any]) -> kube.V1Pod:
    return _Client().deserialize(SimpleNamespace(data=json.dumps(plain)), "V1Pod")


def unknown_keys(plain: Any, kind: str, path: str = "") -> set[str]:
    """Keys that are none of *kind*, a name out of Kubernetes' OpenAPI, at any depth."""
    if plain is None:
        return set()
    if listed := re.fullmatch(r"list\[(.*)\]", kind):
        return {
            found
            for number, one in enumerate(plain)
            for found in unknown_keys(one, listed[1], f"{path}[{number}]")
        }
    if of := re.fullmatch(r"dict\([^,]*, (.*)\)", kind):
        return {
            found
            for key, one in plain.items()
            for found in unknown_keys(one, of[1], f"{path}[{key}]")
        }
    model = getattr(kube, kind, None)
    if model is None:
        return set()
    known = {key: model.openapi_types[name] for name, key in model.attribute_map.items()}
    found = set()
    for key, one in plain.items():
        below = f"{path}.{key}".lstrip(".")
        found |= unknown_keys(one, known[key], below) if key in known else {below}
    return found
