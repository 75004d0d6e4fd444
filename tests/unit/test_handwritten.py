"""Database servers that a hub wrote by hand: what loses their data is told."""

from __future__ import annotations

import pytest

from jhub_safety.sidecars.handwritten import check

MOUNT = [{"name": "db", "mountPath": "/var/lib/postgresql/data", "subPath": "data"}]
ABOVE = [{"name": "db", "mountPath": "/var/lib/postgresql"}]
ELSEWHERE = [{"name": "home", "mountPath": "/home/jovyan"}]
TRUST = {"name": "POSTGRES_HOST_AUTH_METHOD", "value": "trust"}


def postgres(**more):
    return {"name": "postgres", "image": "postgres:14.5", "env": [TRUST], **more}


@pytest.mark.parametrize(
    ("container", "codes"),
    [
        pytest.param(postgres(volumeMounts=MOUNT), [], id="written rightly"),
        pytest.param(
            postgres(env=[TRUST | {"securityContext": {"runAsUser": 1000}, "volumeMounts": MOUNT}]),
            ["recipe-dropped", "recipe-no-volume"],
            id="the recipe as it is printed",
        ),
        pytest.param(postgres(volumeMounts=ELSEWHERE), ["recipe-no-volume"], id="only the home"),
        pytest.param(
            postgres(volumeMounts=ABOVE), ["recipe-hidden-volume"], id="mounted above the image's"
        ),
        pytest.param(
            postgres(
                volumeMounts=[{"name": "db", "mountPath": "/data"}],
                env=[{"name": "PGDATA", "value": "/data/pg"}],
            ),
            [],
            id="a data folder of its own",
        ),
        pytest.param(
            postgres(image="registry.example.org:5000/library/postgres@sha256:0", volumeMounts=[]),
            ["recipe-no-volume"],
            id="an image by digest",
        ),
        pytest.param(
            postgres(image="postgres:18", volumeMounts=ABOVE), [], id="18, as its image wants it"
        ),
        pytest.param(
            postgres(image="docker.io/library/postgres:18.1-bookworm", volumeMounts=MOUNT),
            ["recipe-no-volume"],
            id="18, mounted where 17 had its data",
        ),
        pytest.param(
            postgres(image="postgres:19", volumeMounts=[{"mountPath": "/var/lib"}]),
            ["recipe-hidden-volume"],
            id="19, mounted above the image's",
        ),
        pytest.param(
            postgres(
                image="postgres:18",
                volumeMounts=MOUNT,
                env=[{"name": "PGDATA", "value": "/var/lib/postgresql/data/pg"}],
            ),
            [],
            id="18, with a data folder of its own",
        ),
        pytest.param(postgres(image="postgres", volumeMounts=MOUNT), [], id="no tag, as 17"),
        pytest.param(postgres(image="postgres:latest", volumeMounts=ABOVE), [], id="latest, as 18"),
        pytest.param(
            postgres(image="postgres:alpine", volumeMounts=ELSEWHERE),
            ["recipe-no-volume"],
            id="no number, and wrong for all",
        ),
        pytest.param(
            {
                "name": "m",
                "image": "mysql:8.4",
                "volume_mounts": [{"mount_path": "/var/lib/mysql"}],
            },
            [],
            id="mysql in KubeSpawner's spelling",
        ),
        pytest.param({"name": "m", "image": "mongo"}, ["recipe-no-volume"], id="mongo without"),
        pytest.param({"name": "proxy", "image": "nginx"}, [], id="no database"),
        pytest.param(
            {"name": "proxy", "image": "nginx", "env": [{"name": "A", "value": "b", "ports": []}]},
            ["recipe-dropped"],
            id="the same slip elsewhere",
        ),
        pytest.param("not a container", [], id="no dictionary"),
        pytest.param({"env": None, "image": None}, [], id="nothing in it"),
    ],
)
def test_what_loses_data_is_told(container, codes):
    assert [one.code for one in check([container])] == codes


def test_the_finding_names_the_fields_and_the_container():
    (first, _) = check([postgres(env=[TRUST | {"volumeMounts": MOUNT}])])
    assert "volumeMounts" in first.story
    assert first.subject == "container postgres"
