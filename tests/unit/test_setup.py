"""``setup(c)``: which class a hub ends up with, and what it is told of wrong settings."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import LocalProcessSpawner
from kubespawner import KubeSpawner
from traitlets import Unicode, default
from traitlets.config import Config

import jhub_safety
from jhub_safety.checked import check_settings, safe_class
from jhub_safety.errors import ConfigError
from jhub_safety.homes import HomesMixin
from jhub_safety.hub import application, setup
from jhub_safety.hub.application import finish
from jhub_safety.labs import LabsMixin
from jhub_safety.spawner import SafeKubeSpawner, SafetyMixin
from jhub_safety.volumes.names import OWN_TEMPLATE


class Theirs(KubeSpawner):
    """A hub's own spawner, with a setting of its own."""

    colour = Unicode("red", config=True)


class TheirTemplate(KubeSpawner):
    pvc_name_template = Unicode("home-{username}", config=True)


class TheirDefault(KubeSpawner):
    """The same, said in the way that traitlets prefers."""

    @default("pvc_name_template")
    def _template(self):
        return "home-{username}"

    @default("delete_pvc")
    def _delete(self):
        return True


class Mixed(SafetyMixin, Theirs):
    pass


@pytest.fixture(autouse=True)
def _renames_are_not_followed(monkeypatch):
    """Following them listens to the ORM for the rest of the process."""
    monkeypatch.setattr(application, "follow_renamed_users", lambda app: None)
    # What a hub puts on the classes is gone after the test.
    monkeypatch.setattr(HomesMixin, "on_refusal", None)
    monkeypatch.setattr(LabsMixin, "count_sessions", None)
    monkeypatch.setattr(LabsMixin, "on_gone", None)


@pytest.fixture
def app():
    """A JupyterHub that has loaded its configuration and opened nothing yet."""
    JupyterHub.clear_instance()
    made = JupyterHub.instance()
    # There is no cluster to ask, and a hub waits for one.
    made.config.DatabaseGuard.enabled = False
    yield made
    JupyterHub.clear_instance()


@pytest.fixture
def spawner(monkeypatch):
    """Instances as a hub makes them, without a cluster to connect to."""
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)

    def make(cls, **sections):
        return cls(_mock=True, config=Config(sections))

    return make


# -- which class


@pytest.mark.parametrize(
    ("chosen", "effective"),
    [(KubeSpawner, SafeKubeSpawner), (SafeKubeSpawner, SafeKubeSpawner), (Mixed, Mixed)],
    ids=["plain KubeSpawner", "ours", "a class with the mixin"],
)
def test_a_class_that_is_safe_already_stays(chosen, effective):
    assert safe_class(chosen) is effective


def test_another_kubespawner_gets_the_mixin_in_front():
    safe = safe_class(Theirs)
    assert issubclass(safe, Theirs)
    assert safe.__mro__.index(SafetyMixin) < safe.__mro__.index(Theirs)
    assert (safe.__name__, safe.__module__) == ("SafeTheirs", Theirs.__module__)


def test_a_spawner_without_kubernetes_is_left_alone():
    assert safe_class(LocalProcessSpawner) is None


def test_setup_of_a_hub_that_has_chosen_no_spawner():
    c = Config()
    setup(c)
    assert c.JupyterHub.spawner_class is SafeKubeSpawner


@pytest.mark.parametrize(
    "chosen", [KubeSpawner, Theirs, LocalProcessSpawner, "kubespawner", "simple"]
)
def test_setup_leaves_a_choice_as_it_is_until_all_is_loaded(chosen):
    c = Config(JupyterHub={"spawner_class": chosen})
    setup(c)
    assert c.JupyterHub.spawner_class == chosen


def test_setup_without_a_hub_makes_none():
    """``jupyterhub token`` reads the same file."""
    JupyterHub.clear_instance()
    setup(Config())
    assert not JupyterHub.initialized()


def test_setup_is_the_packages_own_name():
    assert jhub_safety.setup is setup
    assert jhub_safety.SafeKubeSpawner is SafeKubeSpawner


@pytest.fixture
def their_module():
    """A module that a dotted string can name."""
    module = ModuleType("their_module")
    module.Theirs = Theirs
    sys.modules["their_module"] = module
    yield
    del sys.modules["their_module"]


@pytest.mark.parametrize(
    ("chosen", "effective"),
    [
        (KubeSpawner, "SafeKubeSpawner"),
        (Theirs, "SafeTheirs"),
        (Mixed, "Mixed"),
        (LocalProcessSpawner, "LocalProcessSpawner"),
        ("kubespawner.KubeSpawner", "SafeKubeSpawner"),
        ("their_module.Theirs", "SafeTheirs"),
        ("jhub-safety", "SafeKubeSpawner"),
        ("jhub_safety.SafeKubeSpawner", "SafeKubeSpawner"),
        ("simple", "SimpleLocalProcessSpawner"),
    ],
    ids=lambda chosen: getattr(chosen, "__name__", chosen),
)
def test_the_class_that_runs(app, their_module, chosen, effective):
    app.update_config(Config(JupyterHub={"spawner_class": chosen}))
    finish(app)
    assert app.spawner_class.__name__ == effective
    finish(app)
    assert app.spawner_class.__name__ == effective


def test_a_later_file_that_chooses_another_class_does_not_undo_setup(app, monkeypatch):
    """The choice is made when all configuration is loaded, before the database opens."""
    opened = []
    monkeypatch.setattr(app, "init_db", lambda: opened.append(app.spawner_class.__name__))
    setup(app.config)
    app.update_config(Config(JupyterHub={"spawner_class": Theirs}))
    app.init_db()
    assert opened == ["SafeTheirs"]


def test_setup_in_two_files_is_done_once(app, monkeypatch):
    done = []
    monkeypatch.setattr(application, "finish", done.append)
    monkeypatch.setattr(app, "init_db", lambda: None)
    setup(app.config)
    setup(app.config)
    app.init_db()
    assert done == [app]


def test_what_runs_instead_of_their_class_is_said(app, caplog):
    app.log.addHandler(caplog.handler)
    app.log.setLevel(logging.INFO)
    for chosen in (Theirs, LocalProcessSpawner):
        app.update_config(Config(JupyterHub={"spawner_class": chosen}))
        finish(app)
    assert "Theirs runs as SafeTheirs" in caplog.text
    assert "LocalProcessSpawner is no KubeSpawner; its homes are left to it." in caplog.text


def test_wrong_settings_of_an_unrelated_spawner_are_not_judged(app):
    app.update_config(
        Config(
            JupyterHub={"spawner_class": "simple"},
            KubeSpawner={"pvc_name_template": "claim-{username}-{userid}"},
        )
    )
    finish(app)


# -- whose settings win


@pytest.mark.parametrize("cls", [SafeKubeSpawner, safe_class(Theirs), Mixed])
def test_settings_under_the_name_people_write_reach_every_class(spawner, cls):
    made = spawner(cls, SafeKubeSpawner={"homes": "observe", "storage_capacity": "7Gi"})
    assert (made.homes, made.storage_capacity) == ("observe", "7Gi")


def test_settings_of_their_own_class_go_on_working(spawner):
    assert spawner(safe_class(Theirs), Theirs={"colour": "blue"}).colour == "blue"


@pytest.mark.parametrize(
    ("sections", "capacity"),
    [
        ({"KubeSpawner": "1Gi"}, "1Gi"),
        ({"KubeSpawner": "1Gi", "Theirs": "2Gi"}, "2Gi"),
        ({"KubeSpawner": "1Gi", "Theirs": "2Gi", "SafeKubeSpawner": "3Gi"}, "3Gi"),
        ({"SafeKubeSpawner": "3Gi", "SafeTheirs": "4Gi"}, "4Gi"),
    ],
    ids=["KubeSpawner", "their class", "SafeKubeSpawner", "the generated class"],
)
def test_the_section_nearest_to_the_class_wins(spawner, sections, capacity):
    config = {name: {"storage_capacity": value} for name, value in sections.items()}
    assert spawner(safe_class(Theirs), **config).storage_capacity == capacity


@pytest.mark.parametrize("cls", [SafeKubeSpawner, safe_class(Theirs)], ids=["ours", "generated"])
@pytest.mark.parametrize(
    ("sections", "template", "deletes"),
    [
        ({}, OWN_TEMPLATE, False),
        ({"KubeSpawner": {"pvc_name_template": "c-{username}"}}, "c-{username}", False),
        ({"KubeSpawner": {"delete_pvc": True}}, OWN_TEMPLATE, True),
        ({"SafeKubeSpawner": {"delete_pvc": True}}, OWN_TEMPLATE, True),
    ],
    ids=["nothing set", "template", "delete_pvc", "delete_pvc, ours"],
)
def test_our_defaults_lose_to_what_the_hub_sets(spawner, cls, sections, template, deletes):
    made = spawner(cls, **sections)
    assert (made.pvc_name_template, made.delete_pvc) == (template, deletes)


@pytest.mark.parametrize("homes", ["enforce", "observe", "off"])
@pytest.mark.parametrize("cls", [TheirTemplate, TheirDefault], ids=["a trait", "@default"])
def test_a_template_of_the_hubs_own_class_is_respected(spawner, cls, homes):
    made = spawner(safe_class(cls), SafeKubeSpawner={"homes": homes})
    assert made.pvc_name_template == "home-{username}"
    assert made.pvc_name.startswith("home-")


def test_a_class_of_the_hub_that_deletes_claims_is_respected(spawner):
    assert spawner(safe_class(TheirDefault)).delete_pvc is True


@pytest.mark.parametrize("homes", ["observe", "off"])
def test_observing_changes_no_name_and_no_default(spawner, homes):
    plain = spawner(KubeSpawner)
    made = spawner(SafeKubeSpawner, SafeKubeSpawner={"homes": homes})
    assert made.pvc_name_template == plain.pvc_name_template
    assert made.pvc_name == plain.pvc_name
    assert made.delete_pvc == plain.delete_pvc


def test_enforcing_names_claims_after_their_owner(spawner):
    made = spawner(SafeKubeSpawner)
    assert made.pvc_name == made._safety_owner().claim_name


def test_our_fields_are_for_every_template(spawner):
    made = spawner(SafeKubeSpawner, KubeSpawner={"pod_name_template": "x-{user_hash}-{username}"})
    assert made.pod_name == f"x-{made._safety_owner().of_user().hash}-mock-name---6241db84"


# -- wrong settings


@pytest.mark.parametrize(
    ("trait", "value", "says"),
    [
        ("homes", "on", ["'homes'", "'enforce', 'observe', 'off'", "'on'"]),
        ("homes", True, ["'homes'", "True"]),
        ("hub_name", 5, ["'hub_name'", "unicode string", "5"]),
        ("identity_key", None, ["'identity_key'", "unicode string", "None"]),
        ("journal", 5, ["'journal'", "unicode string", "5"]),
        ("annotate_homes", "yes", ["'annotate_homes'", "boolean", "'yes'"]),
        ("claim_listing_max_age", -1, ["'claim_listing_max_age'", "less than 0.0", "-1"]),
        ("claim_listing_max_age", "5s", ["'claim_listing_max_age'", "float", "'5s'"]),
        ("claim_request_timeout", 0, ["'claim_request_timeout'", "less than 0.1", "0"]),
        ("earlier_generations", ["z2jh"], ["earlier_generations", "choose from", "'z2jh'"]),
        ("earlier_generations", 7, ["'earlier_generations'", "list", "7"]),
        ("earlier_pvc_name_templates", ["c-{user}"], ["{user}", "Use {username}", "'c-{user}'"]),
        ("earlier_pvc_name_templates", ["c-{"], ["'c-{'"]),
    ],
)
@pytest.mark.parametrize("section", ["SafeKubeSpawner", "KubeSpawner", "SafeTheirs"])
def test_a_wrong_value_names_class_trait_form_and_value(section, trait, value, says):
    with pytest.raises(ConfigError) as error:
        check_settings(safe_class(Theirs), Config({section: {trait: value}}))
    for part in ("SafeKubeSpawner", trait, *says):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("homez", " Did you mean SafeKubeSpawner.homes?"), ("qqq", ""), ("Homes", " Did you mean")],
)
def test_an_unknown_setting_is_an_error(name, hint):
    with pytest.raises(ConfigError, match=f"^SafeKubeSpawner.{name} is not a setting.{hint}"):
        check_settings(SafeKubeSpawner, Config(SafeKubeSpawner={name: "x"}))


def test_an_unknown_setting_of_another_section_is_not_ours_to_judge():
    check_settings(SafeKubeSpawner, Config(KubeSpawner={"made_up": 1}, JupyterHub={"homez": 1}))


def test_right_settings_pass(app):
    app.update_config(
        Config(
            JupyterHub={"spawner_class": KubeSpawner},
            SafeKubeSpawner={
                "homes": "observe",
                "earlier_generations": ["z2jh-3", "2017"],
                "earlier_pvc_name_templates": ["claim-{username}-{userid}"],
                "claim_listing_max_age": 0,
                "storage_capacity": "1Gi",
            },
        )
    )
    finish(app)


def test_a_list_that_is_added_to_is_checked_too():
    """``c.SafeKubeSpawner.earlier_generations.append(...)``, as people write it."""
    c = Config()
    c.SafeKubeSpawner.earlier_generations.append("z2jh")
    with pytest.raises(ConfigError, match="'z2jh'"):
        check_settings(SafeKubeSpawner, c)


WITH_ID = "claim-{username}-{userid}"


@pytest.mark.parametrize("section", ["KubeSpawner", "SafeKubeSpawner", "Theirs"])
def test_a_template_with_a_database_id_is_refused_with_the_way_on(section):
    with pytest.raises(ConfigError) as error:
        check_settings(safe_class(Theirs), Config({section: {"pvc_name_template": WITH_ID}}))
    text = str(error.value)
    assert "pvc_name_template" in text
    assert repr(WITH_ID) in text
    assert f"SafeKubeSpawner.earlier_pvc_name_templates = [{WITH_ID!r}]" in text


def test_the_way_on_leads_on():
    check_settings(
        SafeKubeSpawner, Config(SafeKubeSpawner={"earlier_pvc_name_templates": [WITH_ID]})
    )


def test_a_template_with_a_database_id_of_the_hubs_own_class_is_refused():
    class WithId(KubeSpawner):
        pvc_name_template = Unicode(WITH_ID, config=True)

    with pytest.raises(ConfigError, match="userid"):
        check_settings(safe_class(WithId), Config())


@pytest.mark.parametrize("homes", ["observe", "off"])
def test_observing_never_keeps_a_hub_from_starting(homes):
    check_settings(
        SafeKubeSpawner,
        Config(KubeSpawner={"pvc_name_template": WITH_ID}, SafeKubeSpawner={"homes": homes}),
    )


@pytest.mark.parametrize("template", ["claim-{user}", "claim-{", 5], ids=str)
def test_a_template_that_cannot_be_used_is_refused(template):
    with pytest.raises(ConfigError, match="pvc_name_template") as error:
        check_settings(SafeKubeSpawner, Config(KubeSpawner={"pvc_name_template": template}))
    assert repr(template) in str(error.value)


def test_a_hub_with_wrong_settings_does_not_start(app):
    app.update_config(
        Config(JupyterHub={"spawner_class": KubeSpawner}, SafeKubeSpawner={"homes": "x"})
    )
    with pytest.raises(ConfigError):
        finish(app)


def test_what_can_be_said_once_is_said_once(spawner, caplog, monkeypatch):
    """Not a line for each of a thousand spawns: the hub's rights do not change meanwhile."""
    monkeypatch.setattr(SafetyMixin, "_said", set())
    made = [spawner(SafeKubeSpawner) for _ in range(3)]
    for each in made:
        each.log = logging.getLogger("tests.unit.said")
        each._cannot_annotate(ConfigError("annotating claim: HTTP 403"))
    assert caplog.text.count("examples/helm/rbac.yaml") == 1
