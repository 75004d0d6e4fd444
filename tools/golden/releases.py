"""Which releases of KubeSpawner are run, with what around them, under which templates.

Requirements are those of the release's own time: the chart's image of that
month where there was one. A pin without a comment only keeps pip from choosing
something newer than the release can import.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Traits = dict[str, str]
"""Trait of KubeSpawner -> value, as a configuration file would set it."""

# zero-to-jupyterhub charts v0.1 to v0.3, and KubeSpawner 0.5's own default.
USERID_2017: Traits = {"pvc_name_template": "claim-{username}-{userid}"}
# KubeSpawner 0.6.0's release notes gave this to those who kept the names of 2017.
LEGACY_USERID: Traits = {"pvc_name_template": "claim-{legacy_escape_username}-{userid}"}
# Charts v0.5 to 3.3.8; charts from 0.10.0 on paired it with a KubeSpawner whose
# {servername} no longer brings its own dash.
CHART: Traits = {"pvc_name_template": "claim-{username}{servername}"}
# KubeSpawner's own default from 0.12 to 6.2.
DOUBLE_DASH: Traits = {"pvc_name_template": "claim-{username}--{servername}"}
ESCAPE: Traits = {"slug_scheme": "escape"}

SINCE_0_6: dict[str, Traits] = {"default": {}, "chart": CHART, "legacy-userid": LEGACY_USERID}
SINCE_7: dict[str, Traits] = SINCE_0_6 | {
    "double-dash": DOUBLE_DASH,
    "escape": ESCAPE,
    "escape-chart": ESCAPE | CHART,
    "escape-double-dash": ESCAPE | DOUBLE_DASH,
}

# Tornado 5 broke JupyterHub before 0.9; PyYAML 6 broke the kubernetes client before 12.
OF_2017 = (
    "tornado==4.5.3",
    "traitlets==4.3.3",
    "sqlalchemy==1.1.18",
    "escapism==0.0.1",
    "pyyaml==5.4.1",
)
OF_2018 = ("tornado==5.1.1", "traitlets==4.3.3", "sqlalchemy==1.2.19", "escapism==1.0.0")
# JupyterHub 1 imports names that SQLAlchemy 2 removed.
OF_2021 = ("traitlets==4.3.3", "sqlalchemy==1.3.24", "escapism==1.0.1")


@dataclass(frozen=True)
class Release:
    """One release of jupyterhub-kubespawner and the environment it is run in."""

    version: str
    python: str
    """Minor version of the interpreter, such as "3.6"."""
    requirements: tuple[str, ...]
    variants: dict[str, Traits] = field(default_factory=lambda: SINCE_0_6)
    charts: str = ""
    """The zero-to-jupyterhub charts whose hub image held this release or its like."""
    named_servers: bool = True
    """Whether the release knows of named servers; without, only default ones are run."""


RELEASES: tuple[Release, ...] = (
    Release(
        "0.5.1",
        "3.6",
        ("jupyterhub==0.7.2", *OF_2017),
        variants={"default": {}},
        charts="v0.1 to v0.3 (commits near this release)",
        named_servers=False,
    ),
    Release(
        "0.6.0",
        "3.6",
        ("jupyterhub==0.7.2", "kubernetes==3.0.0", *OF_2017),
        variants={"default": {}, "userid-2017": USERID_2017, "legacy-userid": LEGACY_USERID},
        charts="v0.4 (a commit shortly before this release)",
        named_servers=False,
    ),
    Release("0.7.1", "3.6", ("jupyterhub==0.8.1", "kubernetes==3.0.0", *OF_2017), charts="v0.5"),
    Release("0.8.1", "3.6", ("jupyterhub==0.8.1", "kubernetes==3.0.0", *OF_2017), charts="v0.6"),
    Release(
        "0.10.1",
        "3.6",
        ("jupyterhub==0.9.6", "kubernetes==8.0.2", *OF_2018),
        charts="0.7 and 0.8 (0.9.0 and 0.10.1)",
    ),
    Release(
        "0.11.1",
        "3.6",
        ("jupyterhub==1.1.0", "kubernetes==10.1.0", *OF_2021),
        charts="0.9",
    ),
    Release(
        "0.14.1",
        "3.8",
        ("jupyterhub==1.2.2", "kubernetes==12.0.1", *OF_2021),
        charts="0.10 and 0.11 (0.14.1 and 0.15.0)",
    ),
    Release("0.16.1", "3.8", ("jupyterhub==1.3.0", "kubernetes==12.0.1", *OF_2021)),
    Release(
        "1.1.2",
        "3.8",
        ("jupyterhub==1.5.0", "kubernetes==12.0.1", *OF_2021),
        charts="1.0 to 1.2 (1.0.0 and 1.1.0)",
    ),
    Release(
        "3.0.2",
        "3.9",
        (
            "jupyterhub==2.2.2",
            "sqlalchemy==1.4.54",
            "kubernetes_asyncio==22.6.5",
            "escapism==1.0.1",
        ),
    ),
    Release(
        "4.3.0",
        "3.9",
        (
            "jupyterhub==3.0.0",
            "sqlalchemy==1.4.54",
            "kubernetes_asyncio==24.2.3",
            "escapism==1.0.1",
        ),
        charts="2.0 (4.2.0)",
    ),
    Release(
        "6.2.0",
        "3.11",
        ("jupyterhub==4.1.6", "kubernetes_asyncio==24.2.3", "escapism==1.0.1"),
        charts="3.0 to 3.3.8 (6.0.0 to 6.2.0)",
    ),
    Release(
        "7.0.0",
        "3.12",
        ("jupyterhub==5.2.1", "kubernetes_asyncio==31.1.1", "escapism==1.0.1"),
        variants=SINCE_7,
        charts="4.0 to 4.3",
    ),
    Release(
        "7.1.0",
        "3.13",
        ("jupyterhub==6.1.1", "kubernetes_asyncio==35.0.1", "escapism==1.1.0"),
        variants=SINCE_7,
        charts="4.4",
    ),
)
