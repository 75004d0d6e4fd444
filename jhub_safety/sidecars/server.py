"""What a database server beside a lab is: its image, where its data is, how it is asked and ended.

A kind is a subclass of :class:`DatabaseServer`, about a page long; see
:mod:`jhub_safety.sidecars.postgres`. Hubs name their own by a dotted path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from jhub_safety.errors import ConfigError
from jhub_safety.sidecars.checks import check, plain_option
from jhub_safety.sidecars.resources import Resources, laid_over

WHERE = "SafeKubeSpawner.databases"
#: Below it, a folder for each server. Outside of every path that an image declares as VOLUME:
#: containerd puts an empty directory over such a path, and over a volume mounted above it.
MOUNTS = "/var/lib/jhub-safety"
#: The dotted paths of the kinds that come with this library, by what hubs write.
KINDS = {
    "postgres": "jhub_safety.sidecars.postgres.Postgres",
    "mysql": "jhub_safety.sidecars.mysql.MySQL",
    "mariadb": "jhub_safety.sidecars.mysql.MariaDB",
}
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_ALSO = {"class": "storage_class"}
#: Keys that go to the claim as they are: see :class:`jhub_safety.volumes.declared.ExtraVolume`.
_CLAIM_KEYS = ("labels", "annotations", "access_modes", "overrides")

Startup = Literal["auto", "native", "container"]


@dataclass(frozen=True, kw_only=True)
class DatabaseServer:
    """One database server of each lab: an entry of ``databases``.

    Every field may be set in an entry. A subclass gives other defaults, and the methods below.
    """

    #: What hubs write as ``kind``.
    kind: ClassVar[str] = ""
    #: The signal at which the server ends at once and cleanly, whatever its image says.
    stop_signal: ClassVar[str] = "TERM"
    #: First word of the command that the image runs; official images have this one.
    entrypoint: ClassVar[str] = "docker-entrypoint.sh"
    #: Mode of the data folder that the server insists on, or "".
    data_mode: ClassVar[str] = ""
    #: What in ``args`` lets others than the lab connect, and its harmless values. Patterns of
    #: names as :meth:`options` gives them.
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})
    #: What in ``args`` and ``env`` a key of the entry is for: patterns of names, and the key.
    #: What says where the data is has the key "folder".
    keys_for: ClassVar[Mapping[str, str]] = MappingProxyType({})

    #: Name of the container, and of its folder below /run and the mount; plain letters.
    name: str = ""
    image: str = ""
    image_pull_policy: str = "IfNotPresent"
    port: int = 0
    #: Size of its claim.
    capacity: str = "1Gi"
    storage_class: str | None = None
    #: Template of the claim's name. Empty: ``<name>-`` and the fields of this library.
    claim: str = ""
    #: Further keys of the claim, as in ``extra_pvcs``.
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    access_modes: Sequence[str] = ("ReadWriteOnce",)
    overrides: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    #: The folder in the claim that holds the data.
    folder: str = "data"
    #: An entry's amounts are laid over these, one by one.
    resources: Resources = field(
        default_factory=lambda: MappingProxyType(
            {
                "requests": {"memory": "64Mi", "cpu": "0.01"},
                "limits": {"memory": "512Mi", "cpu": "1"},
            }
        )
    )
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    args: Sequence[str] = ()
    #: The account that the lab's programs use, and its database.
    user: str = "jovyan"
    database: str = "jovyan"
    #: A uid; "lab": the lab's; "image": the image's own (its entrypoint begins as root).
    run_as: int | str = "lab"
    mount_home: bool = True
    startup: Startup = "auto"
    #: Seconds that a lab waits for its server at most.
    startup_deadline: int = 60
    #: True: no lab without its server.
    required: bool = False
    #: Seconds that the server may take to end cleanly.
    stop_seconds: int = 30
    #: MiB that are kept aside, so that a server with a full volume can still start. 0: none.
    reserve_mib: int = 32

    # -- what a kind brings

    def environment(self) -> dict[str, str]:
        """Variables of the server's container."""
        return {}

    def arguments(self) -> list[str]:
        """Arguments of the entrypoint, the hub's ``args`` not among them."""
        return []

    def last_arguments(self) -> list[str]:
        """What follows the hub's ``args``, so that it counts whatever these say."""
        return []

    @classmethod
    def options(cls, args: Sequence[str]) -> list[tuple[str, str]]:
        """Names and values in ``args``: "a_b" for "--A-b=value", "-a" for "-avalue"."""
        found = []
        for word in args:
            name, _, value = word.strip().partition("=")
            if name.startswith("--"):
                found.append((plain_option(name[2:]), value))
            elif name.startswith("-"):
                found.append((name[:2], word.strip()[2:]))
        return found

    def client_environment(self) -> dict[str, str]:
        """Variables that make the lab's client programs find the server."""
        return {}

    #: For operators: how data of an older version comes to a newer one.
    upgrade: ClassVar[str] = "as the server's own documentation says, after a copy of the claim"
    #: Shell: succeeds when the server answers, over TCP as the lab asks it.
    ready: ClassVar[str] = "false"
    #: Shell: prints which versions can read what this server writes, such as "17".
    server_version: ClassVar[str] = ""
    #: Shell: the same of the data in $JHS_DATA; nothing where there is no data of such a server;
    #: "unknown" where there is, and it does not say.
    data_version: ClassVar[str] = ""
    #: Shell: run each time the server has become ready, before the lab may use it.
    after_ready: ClassVar[str] = ""
    #: Shell: run before the server, when nobody else has its data open: takes away what a server
    #: that was killed has left, where the next one takes it for a running one.
    stale: ClassVar[str] = ""

    # -- from configuration

    @property
    def mount(self) -> str:
        """Where the claim is mounted in the server's container."""
        return f"{MOUNTS}/{self.name}"

    @property
    def data(self) -> str:
        return f"{self.mount}/{self.folder}"

    @property
    def container(self) -> str:
        return f"jhub-safety-{self.name}"

    @property
    def claim_template(self) -> str:
        return self.claim or f"{self.name}-{{owner_slug}}-{{owner_hash}}"

    def volume_entry(self) -> dict[str, Any]:
        """Its claim, as an entry of ``extra_pvcs``."""
        entry: dict[str, Any] = {"name": self.claim_template, "capacity": self.capacity}
        if self.storage_class:
            entry["class"] = self.storage_class
        entry.update({key: value for key in _CLAIM_KEYS if (value := getattr(self, key))})
        return entry

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any], where: str) -> DatabaseServer:
        """Raises ConfigError: an unknown key, a value of the wrong form."""
        known = {one.name: one for one in fields(cls)}
        # Helm values that are set to nothing arrive as None.
        given = {
            _ALSO.get(str(key), str(key)): value
            for key, value in entry.items()
            if value is not None or _ALSO.get(str(key), str(key)) not in known
        }
        given.pop("kind", None)
        where = f"{where}[{given.get('name', cls.kind)}]"
        for key in given:
            if key not in known:
                near = get_close_matches(key, [*known, *_ALSO], n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{where}: {key!r} is not a key of an entry.{hint}")
        given.setdefault("name", cls.kind)
        # What is said of them is laid over the kind's own: a subclass may have others.
        resources = given.pop("resources", None)
        server = cls(**given)
        if resources is not None:
            amounts = laid_over(server.resources, resources, f"{where}.resources")
            server = replace(server, resources=amounts)
        server.check(where)
        return server

    def check(self, where: str) -> None:
        """Raises ConfigError: a value that cannot be used."""
        check(self, where)


def kind_of(name: str, where: str) -> type[DatabaseServer]:
    """The class of a kind, by its short name or dotted path.

    Raises:
        ConfigError: there is none.
    """
    path = KINDS.get(name, name)
    module, dot, attribute = path.rpartition(".")
    if not dot:
        near = get_close_matches(name, KINDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{where}: {name!r} is no kind of database; there are {', '.join(KINDS)}, and "
            f"subclasses of DatabaseServer by dotted path.{hint}"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {path} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, DatabaseServer):
        raise ConfigError(f"{where}: {path} is no subclass of DatabaseServer")
    if "__dataclass_fields__" not in vars(found):
        # Its defaults would be overlooked.
        raise ConfigError(f"{where}: {path} wants @dataclass(frozen=True, kw_only=True) before it")
    return found


def parse_servers(entries: Iterable[object], where: str = WHERE) -> tuple[DatabaseServer, ...]:
    """Every entry: the name of a kind, or a dictionary with ``kind``.

    Raises:
        ConfigError: one cannot be used, or two have the same name, port or claim.
    """
    found = []
    for entry in entries:
        given = {"kind": entry} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
            # Its values may be passwords.
            seen = sorted(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
            raise ConfigError(
                f"{where}: {seen}; wanted: the name of a kind such as 'postgres', or a "
                "dictionary such as {'kind': 'postgres', 'capacity': '2Gi'}"
            )
        found.append(kind_of(given["kind"], where).from_entry(given, where))
    for key in ("name", "port", "claim_template"):
        values = [getattr(one, key) for one in found]
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"{where}: two entries have the {key} {value!r}")
    return tuple(found)
