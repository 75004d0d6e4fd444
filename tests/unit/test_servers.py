"""What a hub may say of its databases: accepted, or refused with a hint; never open to others."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jhub_safety.errors import ConfigError
from jhub_safety.sidecars.mysql import MariaDB, MySQL
from jhub_safety.sidecars.postgres import Postgres
from jhub_safety.sidecars.resources import Resources
from jhub_safety.sidecars.server import KINDS, WHERE, DatabaseServer, kind_of, parse_servers

SECRET = "hunter2-and-more"


@dataclass(frozen=True, kw_only=True)
class Own(DatabaseServer):
    kind: ClassVar[str] = "own"
    ready: ClassVar[str] = "true"
    image: str = "own:1"
    port: int = 7000


class Overlooked(Own):
    """Not decorated: its image would not count."""

    image: str = "overlooked:1"


@dataclass(frozen=True, kw_only=True)
class Roomy(Own):
    resources: Resources = field(
        default_factory=lambda: {"requests": {"memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    )


OWN = f"{__name__}.Own"
ROOMY = f"{__name__}.Roomy"


def entry(kind="postgres", **keys):
    return {"kind": kind, **keys}


def one(**keys) -> DatabaseServer:
    [server] = parse_servers([entry(**keys)])
    return server


def refusal(*entries) -> str:
    with pytest.raises(ConfigError) as refused:
        parse_servers(entries)
    return str(refused.value)


# -- what is accepted


@pytest.mark.parametrize(
    ("given_entry", "wanted"),
    [
        pytest.param("postgres", Postgres(name="postgres"), id="postgres"),
        pytest.param("mysql", MySQL(name="mysql"), id="mysql"),
        pytest.param("mariadb", MariaDB(name="mariadb"), id="mariadb"),
        pytest.param({"kind": "postgres"}, Postgres(name="postgres"), id="a dictionary"),
        pytest.param(KINDS["postgres"], Postgres(name="postgres"), id="the same by dotted path"),
        pytest.param(OWN, Own(name="own"), id="an own kind by dotted path"),
        pytest.param({"kind": OWN, "port": 1}, Own(name="own", port=1), id="... with a field"),
    ],
)
def test_a_kind_may_be_named_alone_or_with_fields(given_entry, wanted):
    assert parse_servers([given_entry]) == (wanted,)


EVERY = {
    "name": "course-db",
    "image": "registry.example.org/postgres:16",
    "image_pull_policy": "Always",
    "port": 5433,
    "capacity": "2Gi",
    "storage_class": "fast",
    "claim": "db-{owner_slug}-{owner_hash}",
    "labels": {"course": "db101"},
    "annotations": {"backup": "no"},
    "access_modes": ["ReadWriteMany"],
    "overrides": {"users": {"ada": {"capacity": "9Gi"}}},
    "folder": "pg_data.16",
    "resources": {
        "requests": {"memory": "128Mi", "cpu": 0.5},
        "limits": {"memory": "1Gi", "cpu": 2},
    },
    "env": {"TZ": "UTC"},
    "args": ["-c", "max_connections=20"],
    "user": "student",
    "database": "course",
    "run_as": 1234,
    "mount_home": False,
    "startup": "container",
    "startup_deadline": 90,
    "required": True,
    "stop_seconds": 45,
    "reserve_mib": 0,
}


def test_every_field_can_be_written():
    assert set(EVERY) == {one.name for one in fields(Postgres)}
    assert one(**EVERY) == Postgres(**EVERY)


def test_class_is_short_for_storage_class():
    assert one(**{"class": "fast"}) == one(storage_class="fast")


@pytest.mark.parametrize("key", sorted(EVERY))
def test_a_helm_value_that_is_set_to_nothing_is_the_default(key):
    assert one(**{key: None}) == one()


REQUESTS = {"memory": "64Mi", "cpu": "0.01"}
LIMITS = {"memory": "512Mi", "cpu": "1"}


@pytest.mark.parametrize(
    ("given_", "requests", "limits"),
    [
        pytest.param({}, REQUESTS, LIMITS, id="nothing is said"),
        pytest.param(
            {"limits": {"memory": "1Gi"}},
            REQUESTS,
            {"memory": "1Gi", "cpu": "1"},
            id="one limit, and the requests stay",
        ),
        pytest.param(
            {"requests": {"cpu": "0.5"}},
            {"memory": "64Mi", "cpu": "0.5"},
            LIMITS,
            id="one request, and the limits stay",
        ),
        pytest.param(
            {"limits": {"ephemeral-storage": "1Gi"}},
            REQUESTS,
            {**LIMITS, "ephemeral-storage": "1Gi"},
            id="one that has no default",
        ),
        pytest.param({"limits": {}}, REQUESTS, LIMITS, id="an empty section says nothing"),
        pytest.param(
            {"limits": {"cpu": None}}, REQUESTS, {"memory": "512Mi"}, id="one limit is taken away"
        ),
        pytest.param({"limits": None}, REQUESTS, None, id="all limits are taken away"),
        pytest.param({"requests": None}, None, LIMITS, id="all requests are taken away"),
        pytest.param({"requests": None, "limits": None}, None, None, id="everything is"),
        pytest.param(
            {"limits": {"gpu": None}}, REQUESTS, LIMITS, id="what is not there is taken away"
        ),
        pytest.param(
            {"limits": {"memory": "32Mi"}},
            {"memory": "32Mi", "cpu": "0.01"},
            {"memory": "32Mi", "cpu": "1"},
            id="a default request is not above the limit",
        ),
        pytest.param(
            {"requests": {"memory": "2Gi"}},
            {"memory": "2Gi", "cpu": "0.01"},
            {"memory": "2Gi", "cpu": "1"},
            id="a default limit is not below the request",
        ),
        pytest.param(
            {"requests": {"cpu": 2}, "limits": {"memory": "1Gi"}},
            {"memory": "64Mi", "cpu": 2},
            {"memory": "1Gi", "cpu": 2},
            id="a number, and each amount by itself",
        ),
    ],
)
def test_amounts_are_laid_over_the_default_one_by_one(given_, requests, limits):
    wanted = {"requests": requests, "limits": limits}
    assert one(resources=given_).resources == {k: v for k, v in wanted.items() if v is not None}


def test_amounts_are_laid_over_those_of_an_own_kind():
    own = {"requests": {"memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    (found,) = parse_servers([{"kind": ROOMY, "resources": {"limits": {"cpu": "2"}}}])
    assert found.resources == {**own, "limits": {"memory": "1Gi", "cpu": "2"}}


def test_its_claim_is_an_entry_of_extra_pvcs_with_all_that_was_said_of_it():
    assert one(**EVERY).volume_entry() == {
        "name": "db-{owner_slug}-{owner_hash}",
        "class": "fast",
        **{
            key: EVERY[key]
            for key in ("capacity", "labels", "annotations", "access_modes", "overrides")
        },
    }


# -- what is refused


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        pytest.param("name", "Postgres", "a-z, 0-9 and '-'", id="name with a capital"),
        pytest.param("name", "a" * 41, "up to 40", id="name too long"),
        pytest.param("name", "a_b", "a-z, 0-9 and '-'", id="name with an underscore"),
        pytest.param("name", "-a", "a-z, 0-9 and '-'", id="name begins with a dash"),
        pytest.param("name", "../x", "a-z, 0-9 and '-'", id="name is a path"),
        pytest.param("name", "", "a-z, 0-9 and '-'", id="no name"),
        pytest.param("name", 5, "a-z, 0-9 and '-'", id="name is a number"),
        pytest.param("name", "state", "taken by this library", id="name of our own volume"),
        pytest.param("name", "ownership", "taken by this library", id="name of our own container"),
        pytest.param("name", "extra-1", "taken by this library", id="name of an extra volume"),
        pytest.param("folder", "..", "the name of a folder", id="folder upwards"),
        pytest.param("folder", "a/b", "the name of a folder", id="folder in a folder"),
        pytest.param("folder", ".jhub-safety-lock", "the name of a folder", id="hidden folder"),
        pytest.param("folder", 5, "the name of a folder", id="folder is a number"),
        pytest.param("image", "", "text", id="no image"),
        pytest.param("image", ["x"], "text", id="image is a list"),
        pytest.param("image_pull_policy", "Sometimes", "'IfNotPresent'", id="pull policy"),
        pytest.param("capacity", 10, "text", id="capacity is a number"),
        pytest.param("storage_class", 5, "text", id="class is a number"),
        pytest.param("claim", 5, "text", id="claim is a number"),
        pytest.param("user", "a b", "a letter, then", id="user with a space"),
        pytest.param("user", "a'; DROP", "a letter, then", id="user with SQL"),
        pytest.param("user", "a" * 33, "up to 32", id="user too long"),
        pytest.param("database", "$(reboot)", "a letter, then", id="database with shell"),
        pytest.param("database", "9lives", "a letter, then", id="database begins with a digit"),
        pytest.param("port", 0, "from 1 to 65535", id="port 0"),
        pytest.param("port", 65536, "from 1 to 65535", id="port too large"),
        pytest.param("port", "5432", "from 1 to 65535", id="port is text"),
        pytest.param("port", True, "from 1 to 65535", id="port is true"),
        pytest.param("startup_deadline", 0, "from 1 to", id="no deadline"),
        pytest.param("startup_deadline", 1.5, "from 1 to", id="deadline is no whole number"),
        pytest.param("stop_seconds", -1, "from 1 to", id="stop in the past"),
        pytest.param("reserve_mib", -1, "from 0 to", id="reserve below nothing"),
        pytest.param("mount_home", "yes", "true or false", id="mount_home is text"),
        pytest.param("mount_home", 1, "true or false", id="mount_home is a number"),
        pytest.param("required", "no", "true or false", id="required is text"),
        pytest.param("startup", "sidecar", "'native' or 'container'", id="startup"),
        pytest.param("startup", ["auto"], "'native' or 'container'", id="startup is a list"),
        pytest.param("run_as", 0, "a uid above 0", id="root"),
        pytest.param("run_as", "1000", "a uid above 0", id="uid is text"),
        pytest.param("run_as", True, "a uid above 0", id="uid is true"),
        pytest.param("run_as", [], "a uid above 0", id="uid is a list"),
        pytest.param("resources", "1Gi", "requests, limits, or both", id="resources as text"),
        pytest.param(
            "resources", {"limit": {}}, "requests, limits, or both", id="a key that is dropped"
        ),
        pytest.param(
            "env", [{"name": "A", "value": "b"}], "of type list; wanted", id="env as in a pod"
        ),
        pytest.param("env", "A=b", "of type str; wanted", id="env as text"),
        pytest.param("args", "-c max_connections=5", "of type str; wanted", id="args as text"),
        pytest.param("args", 5, "of type int; wanted", id="args as a number"),
        pytest.param(
            "args", {"max_connections": "5"}, "of type dict; wanted", id="args as a dictionary"
        ),
    ],
)
def test_a_wrong_value_is_refused_with_entry_key_form_and_value(key, value, told):
    message = refusal(entry(**{key: value}))
    name = value if key == "name" else "postgres"
    assert message.startswith(f"{WHERE}[{name}].{key}: ")
    assert told in message
    if key not in ("env", "args"):
        assert repr(value) in message or str(value) in message


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        pytest.param(
            "env", {"PASSWORD": 5}, ".env['PASSWORD']: of type int; wanted: text", id="env"
        ),
        pytest.param("env", {5: SECRET}, ".env[5]: ", id="env's name"),
        pytest.param("resources", {"limits": "1Gi"}, ".resources.limits: '1Gi'", id="limits"),
        pytest.param(
            "resources", {"limits": {"cpu": []}}, ".resources.limits: {'cpu': []}", id="no amount"
        ),
        pytest.param(
            "resources",
            {"limits": {"memory": "1GB"}},
            ".resources.limits: {'memory': '1GB'}",
            id="no quantity",
        ),
        pytest.param(
            "resources",
            {"requests": {"cpu": "2"}, "limits": {"cpu": "500m"}},
            ".resources.requests: cpu '2' is more than its limit '500m'",
            id="a request above its limit",
        ),
        pytest.param(
            "resources", {"requests": {"cpu": -1}}, ".resources.requests: {'cpu': -1}", id="below 0"
        ),
        pytest.param("args", ["-c", 5], ".args[1]: of type int; wanted: text", id="args"),
    ],
)
def test_of_many_values_the_wrong_one_is_named(key, value, told):
    assert told in refusal(entry(**{key: value}))


@pytest.mark.parametrize(
    ("key", "near"),
    [
        pytest.param("capcity", "capacity", id="capcity"),
        pytest.param("storageClass", "storage_class", id="storageClass"),
        pytest.param("clas", "class", id="clas"),
        pytest.param("runAs", "run_as", id="runAs"),
        pytest.param("imagePullPolicy", "image_pull_policy", id="imagePullPolicy"),
        pytest.param("stopSeconds", "stop_seconds", id="stopSeconds"),
    ],
)
@pytest.mark.parametrize("value", ["1Gi", None], ids=["set", "set to nothing"])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, near, value):
    message = refusal(entry(**{key: value}))
    assert message.startswith(f"{WHERE}[postgres]: {key!r} is not a key of an entry.")
    assert message.endswith(f"Did you mean {near!r}?")


@pytest.mark.parametrize("key", ["zzzz", 5, "data_path_of_the_volume_claim"], ids=str)
def test_a_key_like_none_is_refused_without_a_guess(key):
    message = refusal({"kind": "postgres", key: "x"})
    assert f"{str(key)!r} is not a key of an entry." in message
    assert "Did you mean" not in message


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param("postgre", "Did you mean 'postgres'?", id="misspelt"),
        pytest.param("mongodb", "by dotted path", id="a kind that is not here"),
        pytest.param("", "there are postgres, mysql, mariadb", id="empty"),
        pytest.param("no_such_module.Kind", "cannot be imported", id="no such module"),
        pytest.param("jhub_safety.sidecars.server.Nothing", "cannot be imported", id="no class"),
        pytest.param(".Kind", "cannot be imported", id="no module before the dot"),
        pytest.param("..server.Kind", "cannot be imported", id="a relative path"),
        pytest.param("json.dumps", "is no subclass of DatabaseServer", id="a function"),
        pytest.param("jhub_safety.errors.Doubt", "is no subclass", id="another class"),
        pytest.param(f"{__name__}.Overlooked", "wants @dataclass(", id="defaults overlooked"),
        pytest.param("jhub_safety.sidecars.server.DatabaseServer", ".name: ''", id="the base"),
        pytest.param(5, "wanted: the name of a kind such as 'postgres'", id="a number"),
        pytest.param(None, "wanted: the name of a kind such as 'postgres'", id="nothing"),
        pytest.param({}, "wanted: the name of a kind such as 'postgres'", id="no kind"),
        pytest.param({"kind": 5}, "wanted: the name of a kind", id="kind is a number"),
        pytest.param(["postgres"], "wanted: the name of a kind", id="a list in the list"),
    ],
)
def test_what_names_no_kind_is_refused(wrong, told):
    message = refusal(wrong)
    assert message.startswith(WHERE)
    assert told in message


def test_a_module_that_cannot_be_imported_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "halfway", ModuleType("halfway"))
    with pytest.raises(ConfigError, match=r"halfway\.Kind cannot be imported: .*no attribute"):
        kind_of("halfway.Kind", WHERE)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        pytest.param(["postgres", "postgres"], "the name 'postgres'", id="twice the same"),
        pytest.param(
            ["postgres", entry(name="second")], "the port 5432", id="two of a kind, one port"
        ),
        pytest.param(
            [entry(claim="x-{owner_hash}"), entry("mariadb", claim="x-{owner_hash}")],
            "the claim_template 'x-{owner_hash}'",
            id="one claim",
        ),
        pytest.param(
            ["mysql", entry("mariadb", name="mysql", port=3307)], "the name 'mysql'", id="one name"
        ),
    ],
)
def test_two_entries_do_not_share_a_name_port_or_claim(entries, told):
    assert told in refusal(*entries)


def test_two_servers_of_a_kind_with_names_and_ports_of_their_own_are_fine():
    servers = parse_servers(["postgres", entry(name="second", port=5433)])
    assert [one.name for one in servers] == ["postgres", "second"]
    assert len({one.claim_template for one in servers}) == 2


# -- open to nobody


OPEN_POSTGRES = [
    ["-c", "listen_addresses=*"],
    ["-c", "LISTEN_ADDRESSES=*"],
    ["-c", "listen-addresses='*'"],
    ["-c listen_addresses=*"],
    ["-clisten_addresses=*"],
    ["-c", "listen_addresses=127.0.0.1,10.0.0.1"],
    ["-c", "listen_addresses=0.0.0.0"],
    ["-c", "listen_addresses=::"],
    ["-c", "listen_addresses="],
    ["--listen-addresses=*"],
    ["--listen_addresses='*'"],
    ["--Listen-Addresses=*"],
    ["-h", "0.0.0.0"],
    ["-h0.0.0.0"],
    ["-h", ""],
    ["-Fh", "*"],
    ["-i"],
    ["-Fi"],
    ["-FiN5"],
    ["-N", "5", "-h", "*"],
    ["-c", "work_mem=8MB", "-c", "listen_addresses=*"],
    ["-c", "listen_addresses=localhost", "-c", "listen_addresses=*"],
]
OPEN_MYSQL = [
    ["--bind-address=*"],
    ["--bind_address=0.0.0.0"],
    ["--Bind-Address=::"],
    ["--bind-address", "0.0.0.0"],
    ["--bind-addr=0.0.0.0"],
    ["--bind=0.0.0.0"],
    ["--loose-bind-address=0.0.0.0"],
    ["--skip-bind-address"],
    ["--bind-address="],
    ["--bind-address=127.0.0.1,10.0.0.1"],
    ["--mysqlx-bind-address=*"],
    ["--loose-mysqlx-bind-address=*"],
    ["--admin-address=0.0.0.0"],
    ["--max-connections=5", "--bind-address=0.0.0.0"],
]


@pytest.mark.parametrize(
    ("kind", "args"),
    [pytest.param("postgres", args, id=" ".join(args)) for args in OPEN_POSTGRES]
    + [
        pytest.param(kind, args, id=f"{kind} {' '.join(args)}")
        for kind in ("mysql", "mariadb")
        for args in OPEN_MYSQL
    ],
)
def test_an_argument_that_lets_others_connect_is_refused(kind, args):
    message = refusal(entry(kind, args=args))
    assert message.startswith(f"{WHERE}[{kind}].args: ")
    assert "would let others than the lab connect" in message


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        pytest.param("postgres", ["-c", "listen_addresses=127.0.0.1"], id="loopback, -c"),
        pytest.param("postgres", ["--listen-addresses='localhost'"], id="loopback, --"),
        pytest.param("postgres", ["-h", "::1"], id="loopback, -h"),
        pytest.param("postgres", ["-c", "max_connections=20", "-F", "-N5"], id="other settings"),
        pytest.param("postgres", ["-c", "config_file=/home/jovyan/pg.conf"], id="own config file"),
        pytest.param("postgres", ["-c", "log_line_prefix=-h %i -i"], id="text like an option"),
        pytest.param("mysql", ["--bind-address=127.0.0.1"], id="loopback, mysql"),
        pytest.param("mysql", ["--binlog-format=ROW", "--max-connections=5"], id="mysql, others"),
        pytest.param("mariadb", ["--innodb-buffer-pool-size=64M"], id="mariadb, others"),
    ],
)
def test_an_argument_that_opens_nothing_is_taken(kind, args):
    assert one(kind=kind, args=args).args == args


@pytest.mark.parametrize(
    "server", [Postgres(name="p"), MySQL(name="m"), MariaDB(name="m")], ids=lambda one: one.kind
)
def test_what_keeps_others_out_comes_last_as_well(server):
    """A file of settings, or a spelling that nobody thought of: the last one counts."""
    loopback = {"Postgres": "listen_addresses=127.0.0.1"}.get(
        type(server).__name__, "--bind-address=127.0.0.1"
    )
    assert loopback in server.arguments()
    assert loopback in server.last_arguments()


@pytest.mark.parametrize("server", [MySQL(name="m"), MariaDB(name="m")], ids=lambda one: one.kind)
def test_mysqls_second_protocol_is_for_the_lab_only_too(server):
    assert "--loose-mysqlx-bind-address=127.0.0.1" in server.arguments()


@settings(deadline=None)
@given(
    before=st.lists(st.sampled_from(["-F", "-c", "max_connections=5", "-N", "5", "-N5"])),
    spelling=st.sampled_from(OPEN_POSTGRES),
    value=st.sampled_from(["*", "0.0.0.0", "10.1.2.3", "::", "eth0.example.org"]),
    number=st.integers(0, 2**6 - 1),
)
def test_case_dashes_and_neighbours_do_not_hide_it(before, spelling, value, number):
    if before[-1:] in (["-c"], ["-N"]):
        before = [*before, "x=1"]  # else it takes the next word for its value
    name = "".join(
        part.upper() if number >> place & 1 else part
        for place, part in enumerate(["li", "st", "en", "_ad", "dre", "sses"])
    )
    assert "others" in refusal(entry(args=[*before, "-c", f"{name}={value}"]))
    assert "others" in refusal(entry(args=[*before, f"--{name.replace('_', '-')}={value}"]))
    assert "others" in refusal(entry(args=[*before, *spelling]))


# -- in its claim


@pytest.mark.parametrize(
    ("kind", "keys", "told"),
    [
        pytest.param("postgres", {"env": {"PGDATA": "/x"}}, "PGDATA", id="PGDATA, of recipes"),
        pytest.param("postgres", {"args": ["-D", "/x"]}, "data_directory", id="-D"),
        pytest.param("postgres", {"args": ["-FD/x"]}, "data_directory", id="-FD"),
        pytest.param(
            "postgres", {"args": ["-c", "data_directory=/x"]}, "data_directory", id="data_directory"
        ),
        pytest.param(
            "postgres", {"env": {"POSTGRES_INITDB_WALDIR": "/wal"}}, "WALDIR", id="its journal"
        ),
        pytest.param(
            "postgres",
            {"env": {"POSTGRES_INITDB_ARGS": "--data-checksums --waldir=/wal"}},
            "POSTGRES_INITDB_ARGS",
            id="its journal, by initdb",
        ),
        pytest.param(
            "postgres", {"env": {"POSTGRES_INITDB_ARGS": "-X /wal"}}, "_ARGS", id="initdb -X"
        ),
        pytest.param("mysql", {"args": ["--datadir=/x"]}, "datadir", id="datadir"),
        pytest.param("mariadb", {"args": ["--loose-datadir=/x"]}, "datadir", id="loose-datadir"),
        pytest.param("mariadb", {"args": ["-h", "/x"]}, "-h", id="-h of MariaDB is its folder"),
        pytest.param(
            "mysql", {"args": ["--innodb-data-home-dir=/x"]}, "innodb_data_home_dir", id="innodb"
        ),
    ],
)
def test_no_setting_puts_the_data_outside_of_the_claim(kind, keys, told):
    message = refusal(entry(kind, **keys))
    assert told in message
    assert "would be lost when the lab stops" in message


@pytest.mark.parametrize(
    ("kind", "keys", "field"),
    [
        pytest.param("postgres", {"args": ["-p", "5433"]}, "port", id="-p"),
        pytest.param("postgres", {"args": ["-c", "port=5433"]}, "port", id="-c port"),
        pytest.param("postgres", {"env": {"POSTGRES_USER": "ada"}}, "user", id="POSTGRES_USER"),
        pytest.param("postgres", {"env": {"POSTGRES_DB": "ada"}}, "database", id="POSTGRES_DB"),
        pytest.param("mysql", {"args": ["--port=3307"]}, "port", id="--port"),
        pytest.param("mysql", {"args": ["-P3307"]}, "port", id="-P"),
        pytest.param("mysql", {"env": {"MYSQL_DATABASE": "x"}}, "database", id="MYSQL_DATABASE"),
        pytest.param("mariadb", {"env": {"MARIADB_DATABASE": "x"}}, "database", id="MariaDB's"),
    ],
)
def test_what_has_a_key_of_its_own_is_said_there(kind, keys, field):
    assert f"use the key {field!r}" in refusal(entry(kind, **keys))


def test_the_librarys_own_variables_are_not_overridden():
    assert "JHS_READY is this library's own" in refusal(entry(env={"JHS_READY": "true"}))


# -- nothing secret is told


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(entry(env={"POSTGRES_PASSWORD": SECRET, "N": 5}), id="beside a wrong one"),
        pytest.param(entry(env=[{"name": "PASSWORD", "value": SECRET}]), id="env as in a pod"),
        pytest.param(entry(env=f"PASSWORD={SECRET}"), id="env as text"),
        pytest.param(entry(args=f"--password={SECRET}"), id="args as text"),
        pytest.param(entry(args=[f"--password={SECRET}", 5]), id="beside a wrong argument"),
        pytest.param(
            entry(args=[f"--password={SECRET}", "-i"]), id="beside an argument that opens"
        ),
        pytest.param({"env": {"PASSWORD": SECRET}}, id="no kind"),
        pytest.param({"kind": 5, "env": {"PASSWORD": SECRET}}, id="a wrong kind"),
        pytest.param([{"env": {"PASSWORD": SECRET}}], id="a list in the list"),
        pytest.param(entry(envs={"PASSWORD": SECRET}), id="misspelt"),
        pytest.param(entry(env={"PASSWORD": SECRET}, port="x"), id="another key is wrong"),
        pytest.param(entry(env={"JHS_X": SECRET}), id="our own variable"),
        pytest.param(entry(env={"POSTGRES_USER": SECRET}), id="what has a key of its own"),
        pytest.param(
            entry(env={"POSTGRES_INITDB_ARGS": f"-X /{SECRET}"}), id="arguments of initdb"
        ),
    ],
)
def test_no_message_holds_the_value_of_a_variable_or_an_argument(wrong):
    assert SECRET not in refusal(wrong)


# -- any input


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


def outcome(entries) -> str:
    """The refusal, or "" when they are taken. Anything else is raised."""
    try:
        parse_servers(entries)
    except ConfigError as error:
        return str(error)
    return ""


@settings(deadline=None)
@given(key=st.sampled_from(sorted(EVERY)), value=anything)
def test_whatever_is_written_is_taken_or_refused_by_name(key, value):
    """No TypeError out of somewhere, which would end the hub without a word of which setting."""
    message = outcome([entry(**{key: value})])
    assert not message or key in message


@settings(deadline=None)
@given(entries=st.lists(anything, max_size=3))
def test_whatever_the_list_holds_is_taken_or_refused(entries):
    message = outcome(entries)
    assert not message or message.startswith(WHERE)
