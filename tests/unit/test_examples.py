"""What people copy works: the example files, and documentation for every row of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubespawner import KubeSpawner
from kubespawner.objects import make_pod
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

import jhub_safety
from jhub_safety import hubconfig
from jhub_safety.checked import check_section, check_settings, safe_class
from jhub_safety.errors import ConfigError
from jhub_safety.hubdb.backup import DatabaseBackup
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.plan import Action
from jhub_safety.sessions.reconciler import SessionReconciler
from jhub_safety.settings import SafetySettings
from jhub_safety.sidecars import upgrade
from jhub_safety.sidecars.pod import Beside, add_servers, objection, who
from jhub_safety.sidecars.server import KINDS, parse_servers
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.volumes.folders import Row as FolderRow
from jhub_safety.volumes.model import Row
from tests.unit.wire_form import unknown_keys, wire

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
#: Rows by which a start goes on; every other one refuses it.
GOING_ON = {Row.KNOWN, Row.SUPERSEDED, Row.RENAMED, Row.SAVED_UNMARKED, Row.SINGLE, Row.NEW}


@pytest.fixture
def hub_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the head of examples/jupyterhub_config.py asks for."""
    monkeypatch.setenv("HUB_IP", "10.0.0.5")
    monkeypatch.setenv("HUB_PASSWORD", "only-in-tests")
    for name in ("HUB_NAMESPACE", "LAB_IMAGE"):
        monkeypatch.delenv(name, raising=False)


def _helm(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / "helm" / name).read_text()))


def _values() -> dict[str, Any]:
    (values,) = _helm("values.yaml")
    return values


# jupyterhub_config.py


def test_the_example_configuration_runs_and_its_settings_are_accepted(hub_environment):
    config = PyFileConfigLoader("jupyterhub_config.py", path=str(EXAMPLES)).load_config()

    chosen = safe_class(KubeSpawner)

    assert config.JupyterHub.spawner_class == "kubespawner.KubeSpawner"
    assert chosen is SafeKubeSpawner
    check_settings(chosen, config)


def test_the_command_line_understands_the_example_configuration(hub_environment):
    hub = hubconfig.load(EXAMPLES / "jupyterhub_config.py", "default")

    assert (hub.hub_name, hub.namespace) == ("jhub", "jhub")
    assert hub.settings.homes == "enforce"
    assert hub.template == "claim-{owner_slug}-{owner_hash}"


def test_every_setting_in_the_example_configuration_is_a_trait(hub_environment):
    config = PyFileConfigLoader("jupyterhub_config.py", path=str(EXAMPLES)).load_config()

    for section in ("KubeSpawner", "SafeKubeSpawner"):
        unknown = set(config[section]) - set(SafeKubeSpawner.class_trait_names(config=True))
        assert not unknown, section
    check_section(SessionReconciler, config)


# helm/static-storage.yaml


def test_the_helm_values_for_homes_on_one_claim_are_usable_and_speak_of_one_template():
    (values,) = _helm("static-storage.yaml")
    section = values["hub"]["config"]["SafeKubeSpawner"]
    assert set(section) <= set(SafetySettings.class_trait_names(config=True))
    assert section["home_sub_path"] == values["singleuser"]["storage"]["static"]["subPath"]
    config = Config()
    config.SafeKubeSpawner.update(section)
    check_settings(SafeKubeSpawner, config)


def test_the_page_on_folders_has_a_line_for_each_row():
    text = (DOCS / "folders.md").read_text()
    for row in FolderRow:
        assert f"| `{row}` |" in text, row


# helm/values.yaml


def test_the_helm_values_touch_nothing_but_image_config_and_the_one_line():
    """The chart's schema refuses any other key below hub; a hub's own storage stays as it is."""
    assert set(_values()) == {"hub"}
    assert set(_values()["hub"]) == {"image", "config", "extraConfig"}
    assert set(_values()["hub"]["image"]) == {"name", "tag"}
    assert set(_values()["hub"]["config"]) == {
        "SafeKubeSpawner",
        "SessionReconciler",
        "DatabaseGuard",
        "DatabaseBackup",
    }


def test_the_helm_values_hold_settings_of_ours_with_usable_values():
    section = _values()["hub"]["config"]["SafeKubeSpawner"]
    assert set(section) <= set(SafetySettings.class_trait_names(config=True))

    config = Config()
    config.SafeKubeSpawner.update(section)  # as the chart's jupyterhub_config.py does it
    check_settings(SafeKubeSpawner, config)

    for section in (SessionReconciler, DatabaseGuard, DatabaseBackup):
        config[section.__name__].update(_values()["hub"]["config"][section.__name__])
        check_section(section, config)


def _first_block(language: str) -> str:
    """What the guide has people write to observe only."""
    text = (DOCS / "install.md").read_text()
    return text.split("## 4. Observe")[1].split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.parametrize("of", ["values.yaml", "the guide's values", "the guide's lines"])
def test_who_begins_as_told_observes_and_no_more(of, monkeypatch):
    """``setup`` alone guards the database, which may hold the hub, and compares sessions."""
    monkeypatch.setattr(jhub_safety, "setup", lambda _: None)
    config = Config()
    if of == "the guide's lines":
        exec(_first_block("python"), {"c": config})
    else:
        values = _values() if of == "values.yaml" else yaml.safe_load(_first_block("yaml"))
        for section, settings in values["hub"]["config"].items():
            config[section].update(settings)
    settings = SafetySettings(config=Config(SafetySettings=config.SafeKubeSpawner))
    assert (settings.homes, settings.sessions) == ("observe", "observe")
    assert not DatabaseGuard(config=config).enabled
    assert not DatabaseBackup(config=config).enabled


def test_the_values_line_in_extra_config_is_the_documented_one():
    (line,) = _values()["hub"]["extraConfig"].values()
    compile(line, "hub.extraConfig", "exec")
    assert line.strip() == "import jhub_safety; jhub_safety.setup(c)"
    for page in (ROOT / "README.md", DOCS / "install.md", DOCS / "index.md"):
        assert "import jhub_safety" in page.read_text(), page
        assert "jhub_safety.setup(c)" in page.read_text(), page


# databases_config.py and helm/databases-values.yaml


@pytest.fixture
def own_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of own kinds lie where the hub can import them."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


def _database_entries(name: str) -> list[Any]:
    if name.endswith(".py"):
        found = PyFileConfigLoader(name, path=str(EXAMPLES)).load_config()
        return list(found.SafeKubeSpawner.databases)
    (values,) = _helm(name)
    return list(values["hub"]["config"]["SafeKubeSpawner"]["databases"])


@pytest.mark.parametrize("name", ["databases_config.py", "databases-values.yaml"])
def test_the_examples_of_databases_are_accepted_when_a_hub_starts(name, own_kinds):
    config = Config()
    config.SafeKubeSpawner.databases = _database_entries(name)
    check_settings(SafeKubeSpawner, config)


@pytest.mark.parametrize("name", ["databases_config.py", "databases-values.yaml"])
def test_each_database_of_an_example_fits_into_a_pod_to_the_last_key(name, own_kinds):
    pod = make_pod("lab", ["x"], 8888, "lab:1")
    servers = parse_servers(_database_entries(name))
    assert objection(pod, servers) == ""
    beside = [Beside(one, f"{one.name}-ada", native=True) for one in servers]
    add_servers(pod, beside, who(pod, "claim-ada", "/home/jovyan"))
    assert unknown_keys(wire(pod), "V1Pod") == set()


def test_there_is_an_example_of_every_kind(own_kinds):
    kinds = {type(one).kind for one in parse_servers(_database_entries("databases_config.py"))}
    assert kinds == {*KINDS, "redis", "mongodb"}


def test_the_database_values_use_what_the_charts_schema_has():
    (values,) = _helm("databases-values.yaml")
    assert set(values) == {"hub"}
    assert set(values["hub"]) == {"config", "extraFiles", "extraEnv"}
    (file,) = values["hub"]["extraFiles"].values()
    assert Path(file["mountPath"]).parent == Path(values["hub"]["extraEnv"]["PYTHONPATH"])
    assert Path(file["mountPath"]).name == "redis_database.py"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--bind", "0.0.0.0"], "would let others"),
        (["--protected-mode", "no"], "would let others"),
        (["--protected-mode=no"], "would let others"),
        (["--dir", "/data"], "outside of its claim"),
        (["--port", "1"], "use the key 'port'"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else None,
)
def test_the_example_of_an_own_kind_lets_nobody_in_either(args, told, own_kinds):
    with pytest.raises(ConfigError, match=told):
        parse_servers([{"kind": "redis_database.Redis", "args": args}])


def test_the_example_of_mongodb_says_that_it_was_not_run():
    assert "it has not been run" in (EXAMPLES / "mongodb_database.py").read_text()


# helm/rbac.yaml


def test_the_role_has_exactly_what_goes_beyond_the_charts():
    role, binding = _helm("rbac.yaml")
    rules = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert role["kind"] == "Role", "nothing cluster-wide"
    assert rules == {("", "persistentvolumeclaims", "patch"), ("", "events", "create")}
    assert binding["kind"] == "RoleBinding"
    assert binding["roleRef"] == {
        "kind": "Role",
        "name": role["metadata"]["name"],
        "apiGroup": "rbac.authorization.k8s.io",
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "hub"}]
    assert "namespace" not in role["metadata"], "kubectl apply -n says where"


# helm/networkpolicy.yaml


def test_the_network_policy_leaves_an_upgrade_no_network_and_concerns_nothing_else():
    (policy,) = _helm("networkpolicy.yaml")
    (server,) = parse_servers(["postgres"])
    wanted = upgrade.Wanted(server, "postgres:15", "postgres:17")
    action = Action("upgrade-database", "jhub", "postgres-ada", "", uid="u", user="ada", server="")
    pod = upgrade.manifest(wanted, action, upgrade.Lab(), "jhub", 1000, 100)
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    assert selected == {"component": upgrade.COMPONENT}, "labs have their own policy"
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"] == {
        "podSelector": {"matchLabels": selected},
        "policyTypes": ["Ingress", "Egress"],
    }, "no rule that lets anything through"
    assert "namespace" not in policy["metadata"], "kubectl apply -n says where"
    assert "examples/helm/networkpolicy.yaml" in (DOCS / "database-upgrades.md").read_text()


# docs


@pytest.mark.parametrize("row", Row)
def test_each_row_of_the_table_is_in_the_documentation(row: Row):
    assert f"| `{row}` |" in (DOCS / "homes.md").read_text()


@pytest.mark.parametrize("row", sorted(set(Row) - GOING_ON))
def test_each_refusal_has_a_section_that_says_what_to_do(row: Row):
    assert f"\n## {row}\n" in (DOCS / "refused.md").read_text()


def test_the_permissions_page_names_the_verbs_of_the_role():
    text = (DOCS / "security.md").read_text()
    assert "| persistentvolumeclaims | **patch** | **no** |" in text
    assert "| events | **create** | **no** |" in text
