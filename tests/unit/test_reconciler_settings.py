"""``c.SessionReconciler``: a name or value that cannot be used ends the hub before it starts."""

from __future__ import annotations

import pytest
from traitlets.config import Config

from jhub_safety.checked import check_section
from jhub_safety.errors import ConfigError
from jhub_safety.sessions.reconciler import SessionReconciler


def check(**settings) -> None:
    check_section(SessionReconciler, Config(SessionReconciler=settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"enabled": False},
        {"interval": 10.0},
        {"orphans": "relink"},
        {"orphans": "delete", "orphan_age": 60.0},
        {"pending_limit": 0.0},
        {"inventory_class": "jhub_safety.sessions.nublado.NubladoInventory"},
        {"dry_run": True, "control_socket": "/run/hub/control.sock"},
    ],
    ids=str,
)
def test_what_can_be_used_passes(settings):
    check(**settings)


def test_a_hub_that_configures_nothing_passes():
    check_section(SessionReconciler, Config())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"intervall": 300.0},
            "intervall is not a setting. Did you mean SessionReconciler.interval?",
        ),
        ({"orphan": "relink"}, "SessionReconciler.orphan is not a setting"),
        ({"xyzzy": 1}, "SessionReconciler.xyzzy is not a setting."),
        ({"orphans": "keep"}, "orphans"),
        ({"interval": 9.9}, "interval"),
        ({"interval": "often"}, "interval"),
        ({"orphan_age": 59.0}, "orphan_age"),
        ({"pending_limit": -1.0}, "pending_limit"),
        ({"dry_run": "yes"}, "dry_run"),
        ({"inventory_timeout": 0.0}, "inventory_timeout"),
        ({"inventory_class": 7}, "inventory_class"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_an_error_that_names_it(settings, said):
    with pytest.raises(ConfigError, match="SessionReconciler") as caught:
        check(**settings)
    assert said in str(caught.value)


def test_every_setting_says_since_when_it_is_there():
    for name, trait in SessionReconciler.class_traits(config=True).items():
        if name in SessionReconciler.class_own_traits(config=True):
            assert ".. versionadded:: " in trait.help, name


def test_by_default_nothing_is_deleted_and_nothing_is_dry():
    made = SessionReconciler()
    assert (made.enabled, made.dry_run, made.orphans) == (True, False, "report")
    assert (made.interval, made.orphan_age, made.pending_limit) == (300.0, 86400.0, 3600.0)
