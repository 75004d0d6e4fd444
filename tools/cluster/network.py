"""The bridge of an instance, its addresses, its firewall rules and its loopback ports."""

from __future__ import annotations

import ipaddress
import json
import socket
import zlib
from collections.abc import Iterable

from . import commands
from .paths import Instance
from .record import Record

_FIRST_OCTET = 10
_PREFERRED = {"demo": 88, "test": 89}
# Other names get one of these by a checksum of the name, so that it is mostly the same again.
_OTHERS = range(90, 120)


def choose_address(instance: Instance, others: Iterable[Record]) -> str:
    """The bridge's address, e.g. "10.88.0.1": the first of a /16 that nothing else here uses."""
    taken = {record.address for record in others if record.name != instance.name}
    routes = _routes(instance)
    start = zlib.crc32(instance.name.encode()) % len(_OTHERS)
    candidates = [*_OTHERS[start:], *_OTHERS[:start]]
    if instance.name in _PREFERRED:
        candidates.insert(0, _PREFERRED[instance.name])
    for octet in candidates:
        address = f"{_FIRST_OCTET}.{octet}.0.1"
        subnet = pod_subnet(address)
        # Podman and VPNs use parts of 10.0.0.0/8 too.
        if address not in taken and not any(subnet.overlaps(route) for route in routes):
            return address
    raise ValueError("every network from 10.90.0.0/16 to 10.119.0.0/16 is in use here")


def pod_subnet(address: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{address}/16", strict=False)


def _routes(instance: Instance) -> list[ipaddress.IPv4Network]:
    text = commands.output(["ip", "-json", "-4", "route", "show"], what="Reading the routes")
    return [
        ipaddress.IPv4Network(route["dst"], strict=False)
        for route in json.loads(text or "[]")
        if route["dst"] != "default" and route.get("dev") != instance.bridge
    ]


def create_bridge(instance: Instance, address: str) -> None:
    """Make the bridge and let its traffic through a firewall whose default is to drop."""
    remove_bridge(instance)
    what = f"Making the bridge {instance.bridge}"
    link = ["ip", "link"]
    commands.output([*link, "add", "name", instance.bridge, "type", "bridge"], what=what)
    commands.output(["ip", "address", "add", f"{address}/16", "dev", instance.bridge], what=what)
    commands.output([*link, "set", instance.bridge, "up"], what=what)
    for rule in _rules(instance):
        commands.output(["iptables", "-w", "5", "-I", *rule], what="Adding a firewall rule")


def remove_bridge(instance: Instance) -> None:
    """Remove the bridge and its rules; what is not there any more is fine."""
    for rule in _rules(instance):
        # More than once, as an interrupted run may have added it twice.
        while commands.succeeds(["iptables", "-w", "5", "-D", *rule]):
            pass
    commands.succeeds(["ip", "link", "delete", instance.bridge])


def _rules(instance: Instance) -> list[list[str]]:
    mark = ["-m", "comment", "--comment", f"jhub-safety {instance.name}", "-j", "ACCEPT"]
    bridge = instance.bridge
    return [
        # Pods reach a hub that runs as a process of this machine.
        ["INPUT", "-i", bridge, *mark],
        # Pods reach each other where bridged traffic passes the firewall (a host with Docker).
        ["FORWARD", "-i", bridge, "-o", bridge, *mark],
    ]


def free_ports(wanted: dict[str, str], recorded: dict[str, int]) -> dict[str, int]:
    """A free port for each name of `wanted` (name: address); the recorded one where it is free."""
    chosen: dict[str, int] = {}
    sockets = []
    try:
        # All are held until the last is chosen, so that no port is given twice.
        for name, address in wanted.items():
            candidate = _bind(address, recorded.get(name, 0)) or _bind(address, 0)
            if candidate is None:
                raise OSError(f"no free port on {address}")
            sockets.append(candidate)
            chosen[name] = candidate.getsockname()[1]
    finally:
        for candidate in sockets:
            candidate.close()
    return chosen


def _bind(address: str, port: int) -> socket.socket | None:
    candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((address, port))
    except OSError:
        candidate.close()
        return None
    return candidate
