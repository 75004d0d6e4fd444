"""Storage classes: what a configuration asks for, and whether the cluster's classes can do it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import web
from traitlets import Bool
from traitlets.config import Config

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.storageclasses import StorageClass, read_all
from jhub_safety.errors import Doubt
from jhub_safety.finding import Severity
from jhub_safety.hub.checking import needs_of
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.volumes.classes import CODES, Need, check, needs, not_seen, unlike
from jhub_safety.volumes.declared import ExtraVolume, parse_all
from tests.unit.api_server import api_server
from tests.unit.given import claim

HOMES = Need(None, "homes")
FAST = Need("fast", "homes")
GROWING = Need("fast", "homes", "grow_homes is on", least="10Gi")
DATA = Need("fast", "extra volume data-{username}", volume="data-{username}", least="10Gi")

GOOD = {"expands": True, "reclaims": "Retain", "binding": "WaitForFirstConsumer"}
OLD, NEW = datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)


def of_class(name="fast", **fields) -> StorageClass:
    return StorageClass(name, **{**GOOD, **fields})


def small(name="data-alice", storage_class="fast", volume="data-{username}"):
    return claim(
        name, {marks.VOLUME: volume}, capacity="1Gi", storage_class=storage_class, phase="Bound"
    )


def recipes(user="alice", name="data-alice", storage_class="slow", **fields):
    """As 2i2c's recipe makes it, and as it stays when the hub may not patch claims."""
    labels = {"component": "extra-pvc"}
    fields = {"capacity": "1Gi", "access_modes": ("ReadWriteOnce",)} | fields
    return claim(
        name, {marks.KUBESPAWNER_USER: user}, labels, storage_class=storage_class, **fields
    )


def home(name="claim-alice"):
    labels = {"component": "singleuser-storage"}
    return claim(name, {}, labels, capacity="1Gi", storage_class="fast")


TABLE = [
    pytest.param([of_class()], [FAST], [], ["ok class-in-order fast"], id="in order"),
    pytest.param([of_class()], [], [], [], id="nothing asked"),
    pytest.param([], [FAST], [], ["error class-unknown fast"], id="unknown class"),
    pytest.param([of_class()], [HOMES], [], ["error class-no-default default class"], id="none"),
    pytest.param(
        [of_class(default=True)], [HOMES], [], ["ok class-in-order fast"], id="the default one"
    ),
    pytest.param(
        [of_class("a", default=True, created=NEW), of_class("b", default=True, created=OLD)],
        [HOMES],
        [],
        ["warning class-two-defaults default class", "ok class-in-order a"],
        id="two defaults: the newest is looked at",
    ),
    pytest.param(
        [of_class("b", default=True, created=OLD), of_class("a", default=True, created=OLD)],
        [HOMES],
        [],
        ["warning class-two-defaults default class", "ok class-in-order a"],
        id="two defaults of one age: the first by name",
    ),
    pytest.param(
        [of_class("a", default=True), of_class("b", default=True), of_class()],
        [FAST],
        [],
        ["ok class-in-order fast"],
        id="two defaults that nobody asks for",
    ),
    pytest.param(
        [of_class(expands=False)], [FAST], [], ["ok class-in-order fast"], id="fixed, not to grow"
    ),
    pytest.param(
        [of_class(expands=False)],
        [GROWING],
        [],
        ["warning class-cannot-grow fast"],
        id="fixed, to grow",
    ),
    pytest.param(
        [of_class(reclaims="Delete")],
        [FAST],
        [],
        ["ok class-in-order fast", "ok class-deletes fast"],
        id="deletes",
    ),
    pytest.param(
        [of_class(binding="Immediate")],
        [FAST],
        [],
        ["ok class-in-order fast", "ok class-binds-at-once fast"],
        id="binds at once",
    ),
    pytest.param(
        [of_class(provisioner="kubernetes.io/no-provisioner", binding="Immediate")],
        [FAST],
        [],
        ["ok class-in-order fast", "ok class-by-hand fast"],
        id="made by hand",
    ),
    pytest.param(
        [of_class(expands=False)],
        [DATA],
        [small()],
        ["ok class-in-order fast", "warning class-cannot-grow fast"],
        id="a claim that is behind and cannot grow",
    ),
    pytest.param(
        [of_class(), of_class("slow", expands=False)],
        [DATA],
        [small(storage_class="slow")],
        ["ok class-in-order fast", "warning class-cannot-grow slow"],
        id="a claim that is behind, of a former class",
    ),
    pytest.param(
        [of_class(), of_class("slow", expands=False)],
        [DATA],
        [recipes()],
        ["ok class-in-order fast", "warning class-cannot-grow slow"],
        id="a claim that is behind, known by its name",
    ),
    pytest.param(
        [of_class()], [DATA], [small()], ["ok class-in-order fast"], id="a claim that can grow"
    ),
    pytest.param(
        [of_class(expands=False)],
        [DATA],
        [small(volume="of an entry that is gone"), claim("unmarked", capacity="1Gi")],
        ["ok class-in-order fast"],
        id="claims of something else",
    ),
    pytest.param(
        [of_class(expands=False)],
        [Need("fast", "homes", least="10Gi")],
        [home()],
        ["ok class-in-order fast"],
        id="a small home that is not to grow",
    ),
]


@pytest.mark.parametrize(("classes", "wanted", "claims", "expected"), TABLE)
def test_finding(classes, wanted, claims, expected):
    found = check(classes, wanted, claims)
    assert [f"{one.severity} {one.code} {one.subject}" for one in found] == expected


def test_a_home_that_is_to_grow_is_looked_at():
    found = check([of_class(expands=False)], [GROWING], [home()])
    assert ["1 existing claim(s) of homes" in one.story for one in found] == [False, True]


def test_every_code_has_a_case():
    tested = {line.split()[1] for param in TABLE for line in param.values[3]}
    others = {not_seen(Doubt("x")).code, "volume-differs"}
    assert tested | others == set(CODES)


# -- what is asked for


def test_overrides_ask_for_their_own_classes_and_for_growth():
    (volume,) = parse_all(
        [
            {
                "name": "data-{username}",
                "capacity": "10Gi",
                "overrides": {"groups": {"ml": {"capacity": "50Gi", "class": "fast"}}},
            }
        ]
    )
    found = needs([volume], homes=False, home_class=None, home_capacity=None, grow_homes=False)
    assert [(one.storage_class, bool(one.grows), one.least) for one in found] == [
        (None, True, "10Gi"),
        ("fast", True, "10Gi"),
    ]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        pytest.param({}, [], id="homes elsewhere"),
        pytest.param({"storage_pvc_ensure": True}, [(None, "homes", "")], id="the default class"),
        pytest.param(
            {"storage_pvc_ensure": True, "storage_class": "fast"},
            [("fast", "homes", "")],
            id="a class of its own",
        ),
        pytest.param(
            {"storage_pvc_ensure": True, "storage_class": ""}, [], id="volumes made beforehand"
        ),
    ],
)
def test_what_a_configuration_asks_for(settings, asked):
    found = needs_of(SafeKubeSpawner, Config({"KubeSpawner": settings}))
    assert [(one.storage_class, one.what, one.grows) for one in found] == asked


def test_the_default_of_a_hubs_own_class_counts():
    class Theirs(SafeKubeSpawner):
        storage_pvc_ensure = Bool(True, config=True)

    assert [one.what for one in needs_of(Theirs, Config())] == ["homes"]


# -- what the cluster says

CLASS = {
    "metadata": {
        "name": "fast",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "example.com/disk",
    "reclaimPolicy": "Retain",
    "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
}


def _says(body, status=200):
    async def reply(_):
        return web.json_response(body, status=status)

    return reply


async def test_a_class_is_read_whole():
    async with api_server() as server:
        server.answers(_says({"kind": "StorageClassList", "items": [CLASS]}))
        (one,) = await read_all(server.api)
    assert one == of_class(default=True, provisioner="example.com/disk", created=NEW)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param({"kind": "Status", "message": "no"}, 403, "may not list", id="forbidden"),
        pytest.param({"kind": "Status"}, 503, "HTTP 503", id="down"),
        pytest.param({"kind": "StorageClassList"}, 200, "no items", id="no items"),
        pytest.param({"kind": "StorageClassList", "items": [{}]}, 200, "not whole", id="garbage"),
        pytest.param({"kind": "PodList", "items": []}, 200, "no StorageClassList", id="other"),
    ],
)
async def test_an_answer_that_is_not_whole_is_unknown_and_no_error(body, status, words):
    async with api_server() as server:
        server.answers(_says(body, status))
        with pytest.raises(Doubt) as raised:
            await read_all(server.api)
    finding = not_seen(raised.value)
    assert finding.severity is Severity.UNKNOWN
    assert words in finding.story
    assert "Servers are not concerned" in finding.story


def _claim(name: str, storage_class: str = "standard", hub: str = "jhub", **more):
    labels = {"jhub-safety/hub": hub}
    annotations = {"jhub-safety/volume": "data-{username}"}
    given = {"access_modes": ("ReadWriteOnce",), "labels": labels, "annotations": annotations}
    return Claim(name, "ns", name, storage_class=storage_class, **(given | more))


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        pytest.param(_claim("same"), False, id="as configured"),
        pytest.param(_claim("slow", "slow"), True, id="another class"),
        pytest.param(_claim("fast", "fast"), False, id="a class that an override gives"),
        pytest.param(_claim("many", access_modes=("ReadWriteMany",)), True, id="other modes"),
        pytest.param(_claim("theirs", "slow", hub="other"), False, id="another hub's"),
        pytest.param(_claim("home", "slow", annotations={}), False, id="no extra volume"),
        pytest.param(
            _claim("gone", "slow", annotations={"jhub-safety/volume": "former-{username}"}),
            False,
            id="of an entry that is no longer there",
        ),
        pytest.param(recipes(), True, id="adopted by a hub that may not patch claims"),
        pytest.param(
            recipes("erin@school.edu", "data-erin-40school-2eedu"), True, id="of an earlier name"
        ),
        pytest.param(recipes(storage_class="standard"), False, id="by name, as configured"),
        pytest.param(recipes("bob"), False, id="the name of another user's"),
        pytest.param(
            replace(recipes(), labels={"component": "singleuser-storage"}), False, id="a home"
        ),
        pytest.param(
            replace(recipes(), annotations={}), False, id="nobody's, by a name of anybody"
        ),
        pytest.param(
            replace(recipes(), labels={"component": "extra-pvc", marks.HUB_LABEL: "other"}),
            False,
            id="by name, of another hub",
        ),
    ],
)
def test_claims_that_are_not_as_configured_are_told(claim, told):
    entry = {
        "name": "data-{username}",
        "class": "standard",
        "capacity": "1Gi",
        "overrides": {"groups": {"quick": {"class": "fast"}}},
    }
    found = unlike([claim, _claim("another")], [ExtraVolume.parse(entry)], "jhub")
    named = [(one.code, claim.name in one.story) for one in found]
    assert named == [("volume-differs", True)] * told
