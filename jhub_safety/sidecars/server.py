"""What a database server beside a lab is: its image, where its data is, how it is asked and ended.

A kind is a subclass of :class:`DatabaseServer`, about a page long; see
:mod:`jhub_safety.sidecars.postgres`. Hubs name their own by a dotted path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from jhub_safety.errors import ConfigError

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
    #: What by its name in ``args`` lets others than the lab connect, and its harmless values.
    listens: ClassVar[Mapping[str, frozenset[str]]] = MappingProxyType({})

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
    resources: Mapping[str, Mapping[str, str]] = field(
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

    def client_environment(self) -> dict[str, str]:
        """Variables that make the lab's client programs find the server."""
        return {}

    #: Shell: succeeds when the server answers, over TCP as the lab asks it.
    ready: ClassVar[str] = "false"
    #: Shell: prints which versions can read what this server writes, such as "17".
    server_version: ClassVar[str] = ""
    #: Shell: the same of the data in $JHS_DATA; nothing where there is no data of such a server;
    #: "unknown" where there is, and it does not say.
    data_version: ClassVar[str] = ""
    #: Shell: run each time the server has become ready, before the lab may use it.
    after_ready: ClassVar[str] = ""

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
        given = {_ALSO.get(str(key), str(key)): value for key, value in entry.items()}
        given.pop("kind", None)
        for key in given:
            if key not in known:
                near = get_close_matches(key, [*known, *_ALSO], n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{where}: {key!r} is not a key of an entry.{hint}")
        given.setdefault("name", cls.kind)
        server = cls(**given)
        server.check(f"{where}[{server.name}]")
        return server

    def check(self, where: str) -> None:
        """Raises ConfigError: a value that cannot be used."""
        if not _plain(self.name) or len(self.name) > 40:
            raise ConfigError(f"{where}.name: {self.name!r}; wanted: a-z, 0-9 and '-', up to 40")
        if not _plain(str(self.folder).replace("_", "").replace(".", "").lower()):
            raise ConfigError(f"{where}.folder: {self.folder!r}; wanted: the name of a folder")
        for key in ("image", "capacity", "user", "database"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ConfigError(f"{where}.{key}: {getattr(self, key)!r}; wanted: text")
        for key, least in (
            ("port", 1),
            ("startup_deadline", 1),
            ("stop_seconds", 1),
            ("reserve_mib", 0),
        ):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{where}.{key}: {value!r}; wanted: a number from {least}")
        for key in ("mount_home", "required"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"{where}.{key}: {getattr(self, key)!r}; wanted: true or false")
        if self.startup not in ("auto", "native", "container"):
            raise ConfigError(
                f"{where}.startup: {self.startup!r}; wanted: 'auto', 'native' or 'container'"
            )
        numeric = isinstance(self.run_as, int) and not isinstance(self.run_as, bool)
        if not (numeric and int(self.run_as) > 0) and self.run_as not in ("lab", "image"):
            raise ConfigError(
                f"{where}.run_as: {self.run_as!r}; wanted: a uid above 0, 'lab' or 'image'"
            )
        _check_texts(self.env, f"{where}.env")
        if isinstance(self.args, str) or any(not isinstance(one, str) for one in self.args):
            raise ConfigError(f"{where}.args: {self.args!r}; wanted: a list of texts")
        _check_loopback(self, where)


def _plain(text: object) -> bool:
    if not isinstance(text, str):
        return False
    return text.replace("-", "").isalnum() and text.isascii() and text == text.strip("-").lower()


def _check_texts(value: object, where: str) -> None:
    if not isinstance(value, Mapping) or any(
        not isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise ConfigError(f"{where}: {value!r}; wanted: text for text")


def _check_loopback(server: DatabaseServer, where: str) -> None:
    """The server asks for no password: it may listen to nobody but the lab."""
    words = [part for one in server.args for part in one.replace("--", "").split()]
    for word in words:
        name, given, value = word.partition("=")
        harmless = server.listens.get(name.replace("-", "_"))
        if given and harmless is not None and value.strip("'\"") not in harmless:
            raise ConfigError(
                f"{where}.args: {word!r} would let others than the lab connect, and the server "
                f"asks for no password. Leave {name} out"
            )


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
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {path} cannot be imported: {error}") from error
    if not isinstance(found, type) or not issubclass(found, DatabaseServer):
        raise ConfigError(f"{where}: {path} is no subclass of DatabaseServer")
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
            raise ConfigError(
                f"{where}: {entry!r}; wanted: the name of a kind such as 'postgres', or a "
                "dictionary such as {'kind': 'postgres', 'capacity': '2Gi'}"
            )
        found.append(kind_of(given["kind"], where).from_entry(given, where))
    for key in ("name", "port", "claim_template"):
        values = [getattr(one, key) for one in found]
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"{where}: two entries have the {key} {value!r}")
    return tuple(found)
