"""Packs a root file system as a docker-archive: what containerd, kind and k3d import."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Runtime:
    """What a container of the image runs when the pod does not say otherwise."""

    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = "/"
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()

    def as_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "Cmd": list(self.cmd),
            "Env": [f"{key}={value}" for key, value in self.env.items()],
            "WorkingDir": self.working_dir,
        }
        if self.entrypoint:
            config["Entrypoint"] = list(self.entrypoint)
        if self.user:
            config["User"] = self.user
        if self.stop_signal:
            config["StopSignal"] = self.stop_signal
        if self.volumes:
            config["Volumes"] = {path: {} for path in self.volumes}
        return config


def pack(rootfs: Path, tag: str, runtime: Runtime, target: Path) -> None:
    """Write `target`, an archive with the one layer `rootfs`, named `tag`.

    The archive appears under its name only when it is complete.
    """
    layer = target.with_suffix(".layer")
    unfinished = target.with_suffix(".part")
    try:
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            for entry in sorted(rootfs.iterdir()):
                tar.add(entry, arcname=entry.name, filter=_without_names)
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        machine = platform.machine()
        config = _json(
            {
                "architecture": _ARCHITECTURES.get(machine, machine),
                "os": "linux",
                "config": runtime.as_config(),
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                "history": [{"created_by": "jhub-safety tools/cluster"}],
            }
        )
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = _json([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}])
        with tarfile.open(unfinished, "w") as tar:
            _add_bytes(tar, "manifest.json", manifest)
            _add_bytes(tar, config_name, config)
            tar.add(layer, arcname="layer.tar")
        unfinished.rename(target)
    finally:
        layer.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)


def _without_names(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    # Only the numbers count in a container, and this machine's names for them may be others.
    member.uname = member.gname = ""
    return member


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
