"""Make spawners with the KubeSpawner installed here and print what they would name.

Runs inside a throw-away environment, so: Python 3.6 syntax, and nothing of ours
is imported. Called as ``probe.py QUESTION`` with a JSON file
``{"variants": {name: {trait: value}}, "cases": [{"user", "server", "userid"}]}``;
answers on stdout with one JSON object ``{"header": ..., "records": [...]}``.

The spawner's own ``__init__`` runs whole, as in a hub. Only the reflectors are
stopped from starting, because there is no cluster to watch. ``_mock=True`` is not
used: in 0.9 to 0.10 it replaces the user.
"""
# ruff: noqa: UP006, UP035  (Python 3.6 has no dict[str, Any])

import asyncio
import inspect
import json
import platform
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict

import jupyterhub
from kubespawner import KubeSpawner
from traitlets.config import Config

HUB = SimpleNamespace(
    api_url="http://hub.invalid:8081/hub/api",
    base_url="/hub/",
    public_host="",
    url="http://hub.invalid:8081/hub/",
)


def do_nothing(*_args: Any, **_kwargs: Any) -> None:
    pass


def stop_reflectors() -> None:
    """Replace what would LIST and watch pods: a method from 0.9 on, a class before."""
    for name in ("_start_watching_pods", "_start_watching_events"):
        if hasattr(KubeSpawner, name):
            setattr(KubeSpawner, name, do_nothing)
    module = sys.modules["kubespawner.spawner"]
    reflector = getattr(module, "PodReflector", None)
    if reflector is not None and hasattr(reflector, "start"):
        reflector.start = do_nothing


def make_spawner(case: Dict[str, Any], traits: Dict[str, str]) -> Any:
    """A spawner as ``User._new_spawner`` makes it: first start, no state to load."""
    user = SimpleNamespace(
        name=case["user"],
        id=case["userid"],
        url="/user/x/",
        proxy_spec="/user/x/",
        escaped_name="x",
        settings={},
        state=None,
    )
    kwargs = {"user": user, "hub": HUB, "config": Config({"KubeSpawner": traits})}
    if "orm_spawner" in KubeSpawner.class_trait_names():
        kwargs["orm_spawner"] = SimpleNamespace(name=case["server"], server=None, state={})
    spawner = KubeSpawner(**kwargs)
    spawner.load_state({})
    return spawner


async def describe(case: Dict[str, Any], traits: Dict[str, str]) -> Dict[str, Any]:
    """What this release makes of one case, or the error that it raises."""
    try:
        spawner = make_spawner(case, traits)
        manifest = spawner.get_pvc_manifest()
        if inspect.isawaitable(manifest):
            manifest = await manifest
    except Exception as error:  # noqa: BLE001  (whatever a release raises is its answer)
        return {"error": f"{type(error).__name__}: {error}"}
    # 0.5 made plain dictionaries, later releases a client's V1PersistentVolumeClaim.
    metadata = manifest["metadata"] if isinstance(manifest, dict) else manifest.metadata.to_dict()
    if metadata["name"] != spawner.pvc_name:
        raise AssertionError(f"{metadata['name']} != {spawner.pvc_name}")
    return {
        "pvc": spawner.pvc_name,
        "pod": spawner.pod_name,
        "annotations": metadata.get("annotations") or {},
        "labels": metadata.get("labels") or {},
    }


async def answer(question: Dict[str, Any]) -> Dict[str, Any]:
    records = []
    for case in question["cases"]:
        variants = {}
        for name, traits in question["variants"].items():
            variants[name] = await describe(case, traits)
        records.append(dict(case, variants=variants))
    defaults = KubeSpawner.class_traits()
    templates = {}
    for name, traits in question["variants"].items():
        templates[name] = {
            trait: traits.get(trait, defaults[trait].default_value)
            for trait in ("pvc_name_template", "pod_name_template", "slug_scheme")
            if trait in defaults
        }
    header = {
        "python": platform.python_version(),
        "unicode": unicodedata.unidata_version,
        "jupyterhub": jupyterhub.__version__,
        "templates": templates,
    }
    return {"header": header, "records": records}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stop_reflectors()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    json.dump(loop.run_until_complete(answer(asked)), sys.stdout)
