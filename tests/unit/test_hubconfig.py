"""What the command line reads out of a hub's configuration file, without starting the hub."""

from __future__ import annotations

import sys

import pytest
from kubespawner import KubeSpawner
from traitlets import Unicode
from traitlets.config import Config

from jhub_safety import hubconfig
from jhub_safety.errors import ConfigError
from jhub_safety.hubconfig import load, understand
from jhub_safety.owner import Owner
from jhub_safety.volumes.names import OWN_TEMPLATE
from tests.unit.given import NAMESPACE

CHART, BESIDE = "chart.py", "jupyterhub_config.py"
MINIMAL = "c.JupyterHub.spawner_class = 'kubespawner.KubeSpawner'\n"


class Theirs(KubeSpawner):
    """A hub's own spawner class, with names of its own for claims."""

    pvc_name_template = Unicode("home-{username}", config=True)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory with no configuration in it, and none in the chart's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hubconfig, "DEFAULT_FILES", (tmp_path / CHART, hubconfig.DEFAULT_FILES[1]))
    return tmp_path


@pytest.fixture
def write(tmp_path):
    """Write a configuration file; a line `c = get_config()` comes first."""

    def write(text: str, name: str = "config.py"):
        file = tmp_path / name
        file.write_text(f"c = get_config()\n{text}")
        return file

    return write


def named(name: str) -> str:
    return f"c.SafeKubeSpawner.hub_name = {name!r}\n"


# -- which file


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        pytest.param([CHART], CHART, id="the chart's"),
        pytest.param([BESIDE], BESIDE, id="the one beside"),
        pytest.param([CHART, BESIDE], CHART, id="the chart's first"),
    ],
)
def test_without_a_file_named_the_first_usual_one_counts(write, files, chosen):
    for name in files:
        write(named(name), name)
    assert load(None, NAMESPACE).hub_name == chosen


def test_the_usual_places_are_the_charts_and_the_working_directory(monkeypatch):
    monkeypatch.undo()
    assert [str(file) for file in hubconfig.DEFAULT_FILES] == [
        "/usr/local/etc/jupyterhub/jupyterhub_config.py",
        "jupyterhub_config.py",
    ]


def test_a_file_that_was_named_beats_the_usual_ones(write):
    write(named("chart"), CHART)
    assert load(write(named("mine"), "mine.py"), NAMESPACE).hub_name == "mine"


def test_a_relative_name_counts_from_the_working_directory(write):
    file = write(named("relative"))
    assert load(file.relative_to(file.parent), NAMESPACE).hub_name == "relative"


def test_without_any_file_the_error_says_where_to_run_it_and_which_option_names_one():
    with pytest.raises(ConfigError, match=r"kubectl exec .* jhub-safety .*--config"):
        load(None, NAMESPACE)


def test_a_file_that_is_missing_is_named(elsewhere):
    with pytest.raises(ConfigError) as error:
        load(elsewhere / "none.py", NAMESPACE)
    assert str(error.value) == f"{elsewhere / 'none.py'}: no such file"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="raises"),
        pytest.param("import no_such_module", "ModuleNotFoundError: No module", id="import"),
        pytest.param("c.=", "SyntaxError", id="no Python"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_the_error(write, text, why):
    file = write(text)
    with pytest.raises(ConfigError) as error:
        load(file, NAMESPACE)
    assert str(error.value).startswith(f"{file} cannot be run: {why}")


def test_what_a_file_includes_counts(write):
    write(named("from below"), "below.py")
    assert load(write("load_subconfig('below.py')"), NAMESPACE).hub_name == "from below"


def test_what_a_file_prints_does_not_get_into_the_commands_answer(write, capsys):
    load(write("import sys\nprint('Loading /etc/config')\nsys.stdout.write('and more')"), NAMESPACE)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Loading /etc/config\nand more"


def test_stdout_is_the_commands_own_again_after_a_file_that_fails(write):
    before = sys.stdout
    with pytest.raises(ConfigError):
        load(write("1 / 0"), NAMESPACE)
    assert sys.stdout is before


# -- what it says


def test_a_file_that_only_switches_it_on_gives_the_defaults(write):
    hub = load(write("import jhub_safety\njhub_safety.setup(c)\n"), NAMESPACE)
    assert (hub.hub_name, hub.namespace) == (NAMESPACE, NAMESPACE)
    assert (hub.template, hub.slug_scheme) == (OWN_TEMPLATE, "safe")
    assert hub.db_url == "sqlite:///jupyterhub.sqlite"
    assert hub.per_server


@pytest.mark.parametrize("spawner", ["kubespawner.KubeSpawner", "jhub-safety", None])
def test_each_way_to_name_a_kubespawner_is_understood(spawner):
    config = Config({"JupyterHub": {"spawner_class": spawner}} if spawner else {})
    assert understand(config, NAMESPACE).template == OWN_TEMPLATE


@pytest.mark.parametrize("section", ["KubeSpawner", "SafeKubeSpawner", "Spawner"])
def test_the_hubs_own_class_is_asked_with_every_section_that_counts_for_it(section):
    config = Config({"JupyterHub": {"spawner_class": Theirs}})
    assert understand(config, NAMESPACE).template == "home-{username}"
    config[section].pvc_name_template = "other-{username}"
    assert understand(config, NAMESPACE).template == "other-{username}"


def test_the_most_special_section_wins():
    config = Config({"JupyterHub": {"spawner_class": Theirs}})
    config.KubeSpawner.namespace = "general"
    config.Theirs.namespace = "special"
    assert understand(config, "fallback").namespace == "special"


@pytest.mark.parametrize(
    ("sections", "fallback", "namespace", "hub_name"),
    [
        pytest.param({}, "pods", "pods", "pods", id="nothing said"),
        pytest.param(
            {"KubeSpawner": {"namespace": "labs"}}, "pods", "labs", "labs", id="namespace"
        ),
        pytest.param({"SafeKubeSpawner": {"hub_name": "h"}}, "pods", "pods", "h", id="name"),
    ],
)
def test_a_hub_goes_by_its_namespace_unless_it_has_a_name(sections, fallback, namespace, hub_name):
    hub = understand(Config(sections), fallback)
    assert (hub.namespace, hub.hub_name) == (namespace, hub_name)
    assert hub.owner("alice") == Owner(hub_name, "alice")


def test_a_hub_that_only_observes_is_answered_for_as_if_it_enforced():
    """That is what people want to know before they let it."""
    observing = understand(Config({"SafeKubeSpawner": {"homes": "observe"}}), NAMESPACE)
    enforcing = understand(Config(), NAMESPACE)
    owner = enforcing.owner("alice")
    assert observing.settings.homes == "observe"
    assert observing.template == enforcing.template
    assert observing.question(owner, None) == enforcing.question(owner, None)


@pytest.mark.parametrize(
    ("template", "server"),
    [("home-{username}", ""), ("home-{username}-{servername}", "gpu"), (None, "gpu")],
)
def test_an_owner_has_a_server_only_where_homes_are_per_server(template, server):
    config = Config({"KubeSpawner": {"pvc_name_template": template}} if template else {})
    hub = understand(config, NAMESPACE)
    assert hub.owner("alice", "gpu").server == server
    assert hub.owner("alice", "gpu", "sub-1").identity == "sub-1"


def test_a_question_carries_what_a_spawn_knows():
    sections = {
        "KubeSpawner": {"pvc_name_template": "home-{username}", "slug_scheme": "escape"},
        "SafeKubeSpawner": {"earlier_pvc_name_templates": ["disk-{username}"]},
    }
    hub = understand(Config(sections), NAMESPACE)
    asked = hub.question(hub.owner("alice@x"), "claim-saved", ("alice",))
    assert (asked.saved, asked.former_users, asked.per_server) == ("claim-saved", ("alice",), False)
    assert asked.own_name == "home-alice-40x"
    assert {"home-{username}", "disk-{username}"} <= {one.template for one in asked.declared}
    assert set(asked.declared) <= set(asked.known)
    assert asked.place.namespace == NAMESPACE


def test_the_database_is_the_one_of_the_configuration():
    config = Config({"JupyterHub": {"db_url": "postgresql://hub@db/jupyterhub"}})
    assert understand(config, NAMESPACE).db_url == "postgresql://hub@db/jupyterhub"


def test_a_bare_path_is_a_sqlite_file_as_for_the_hub():
    config = Config({"JupyterHub": {"db_url": "hub.sqlite"}})
    assert understand(config, NAMESPACE).db_url == "sqlite:///hub.sqlite"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        pytest.param(
            {"JupyterHub": {"spawner_class": "no_such.Spawner"}},
            ["JupyterHub.spawner_class 'no_such.Spawner'", "no_such"],
            id="class cannot be imported",
        ),
        pytest.param(
            {"JupyterHub": {"spawner_class": "kubespawner.NoSuch"}},
            ["JupyterHub.spawner_class 'kubespawner.NoSuch'"],
            id="no such class in the module",
        ),
        pytest.param(
            {"JupyterHub": {"spawner_class": "jupyterhub.spawner.LocalProcessSpawner"}},
            ["JupyterHub.spawner_class", "LocalProcessSpawner", "is no KubeSpawner"],
            id="no KubeSpawner",
        ),
        pytest.param(
            {"SafeKubeSpawner": {"hubname": "h"}},
            ["SafeKubeSpawner.hubname is not a setting", "Did you mean SafeKubeSpawner.hub_name?"],
            id="unknown setting",
        ),
        pytest.param(
            {"SafeKubeSpawner": {"homes": "perhaps"}},
            ["SafeKubeSpawner", "homes", "perhaps"],
            id="wrong value",
        ),
        pytest.param(
            {"KubeSpawner": {"pvc_name_template": "claim-{userid}"}},
            ["SafeKubeSpawner.pvc_name_template", "{userid}", "earlier_pvc_name_templates"],
            id="a template that loses homes",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(sections, words):
    with pytest.raises(ConfigError) as error:
        understand(Config(sections), NAMESPACE)
    for word in words:
        assert word in str(error.value)
