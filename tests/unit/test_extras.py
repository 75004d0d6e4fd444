"""Extra volumes on a spawner: settled before the pod is made, grown, told of, mounted."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm
from kubespawner import KubeSpawner
from traitlets import TraitError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from jhub_safety import extras, metrics
from jhub_safety import owner as marks
from jhub_safety.checked import check_settings
from jhub_safety.cluster import forgotten
from jhub_safety.errors import ConfigError, Conflict, Doubt
from jhub_safety.homes import HomesMixin
from jhub_safety.hubdb.records import FORMER_USERS, VOLUMES
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from jhub_safety.settings import SafetySettings, from_chart
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.volumes.declared import parse_all
from jhub_safety.volumes.extra import Wanted
from jhub_safety.volumes.names import Place as Where
from tests.unit.cluster_double import ClusterDouble, counts
from tests.unit.given import claim

RECIPE = {"name": "postgres-{username}", "class": "standard", "capacity": "1Gi"}
DATA = {"name": "data-{owner_slug}-{owner_hash}", "capacity": "10Gi", "mount_path": "/data"}
HUB = "hub"
ERIN = "erin@school.edu"
EARLIER = "postgres-erin-40school-2eedu"
ALICE = Owner(HUB, "alice")


@dataclass
class Place:
    """What a test sets up, and looks at afterwards."""

    folder: Any
    cluster: ClusterDouble = field(default_factory=ClusterDouble)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    event_fault: Exception | None = None
    #: What an operator gave up: claim by hash and volume.
    given_up: dict[tuple[str, str], str] = field(default_factory=dict)

    def spawner(self, user="alice", server="", groups=(), state=None, **settings) -> Any:
        """As a hub makes one for a start, with what it has saved."""
        config = Config()
        config.SafeKubeSpawner.update(
            hub_name=HUB, journal=str(self.folder / "journal"), extra_pvcs=[RECIPE]
        )
        config.SafeKubeSpawner.update(settings)
        person = SimpleNamespace(
            name=user,
            id=1,
            url="/user/x/",
            groups=[SimpleNamespace(name=group) for group in groups],
            get_auth_state=_nothing,
        )
        row = orm.Spawner(name=server, state=state or {})
        made = SafeKubeSpawner(_mock=True, user=person, orm_spawner=row, config=config)
        made._claims_api = lambda: self.cluster
        if state:
            made.load_state(state)
        return made

    async def settle(self, *args, **more) -> Any:
        made = self.spawner(*args, **more)
        await made._settle_extras()
        return made

    def journal(self) -> list[tuple[str, str, str]]:
        path = self.folder / "journal"
        lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [(line["kind"], line["name"], line["outcome"]) for line in lines]


async def _nothing() -> None:
    return None


@pytest.fixture
def place(monkeypatch, tmp_path):
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr(HomesMixin, "_said", set())
    made = Place(tmp_path)

    async def warn(_, __, name, uid, reason, message):
        if made.event_fault:
            raise made.event_fault
        made.events.append((name, reason, message))

    async def given_up(_, __, owner, volume, **___):
        claim = made.given_up.get((owner.hash, volume))
        return None if claim is None else forgotten.Word(claim)

    monkeypatch.setattr(extras.events, "warn_about_claim", warn)
    monkeypatch.setattr(forgotten, "word", given_up)
    return made


def ours(owner=ALICE, name="postgres-alice", volume=RECIPE["name"], **fields):
    fields = {"capacity": "1Gi", "access_modes": ("ReadWriteOnce",)} | fields
    annotations = {**owner.annotations("extra"), marks.VOLUME: volume}
    return claim(name, annotations, {"component": "extra-pvc", **owner.labels()}, **fields)


def recipes(name, user, **fields):
    fields = {"capacity": "1Gi", "storage_class": "standard"} | fields
    return claim(name, {marks.KUBESPAWNER_USER: user}, {"component": "extra-pvc"}, **fields)


# -- settling


async def test_without_a_declaration_nothing_is_asked(place):
    made = await place.settle(extra_pvcs=[])
    assert place.cluster.calls == []
    assert VOLUMES not in made.get_state()


async def test_a_new_volume_says_whose_and_which_it_is(place):
    await place.settle(
        extra_pvcs=[RECIPE | {"labels": {"course": "db"}, "annotations": {"a": "b"}}]
    )
    made = place.cluster.stored["postgres-alice"]
    owner = Owner(HUB, "alice")
    assert (
        made.annotations.items()
        >= {
            **owner.annotations("extra"),
            marks.VOLUME: "postgres-{username}",
            marks.KUBESPAWNER_USER: "alice",
            "a": "b",
        }.items()
    )
    assert (
        made.labels.items()
        >= {
            "component": "extra-pvc",
            "course": "db",
            **owner.labels(),
        }.items()
    )
    assert (made.capacity, made.storage_class, made.access_modes) == (
        "1Gi",
        "standard",
        ("ReadWriteOnce",),
    )
    assert place.journal() == [("create-claim", "postgres-alice", "done")]
    assert place.events == []


async def test_labels_of_an_entry_never_hide_whose_it_is(place):
    hostile = {"component": "singleuser-storage", marks.HUB_LABEL: "x", marks.OWNER_LABEL: "y"}
    said = {marks.USER: "bob", marks.VOLUME: "x"}
    await place.settle(extra_pvcs=[RECIPE | {"labels": hostile, "annotations": said}])
    made = place.cluster.stored["postgres-alice"]
    assert made.labels["component"] == "extra-pvc"
    assert made.labels.items() >= Owner(HUB, "alice").labels().items()
    assert (made.annotations[marks.USER], made.annotations[marks.VOLUME]) == (
        "alice",
        RECIPE["name"],
    )


async def test_what_was_settled_survives_a_restart_of_the_hub_and_costs_one_read(place):
    first = await place.settle()
    saved = json.loads(json.dumps(first.get_state()))
    assert saved[VOLUMES] == {"postgres-{username}": "postgres-alice"}
    place.cluster.calls.clear()
    second = await place.settle(state=saved)
    assert place.cluster.calls == [("read", "postgres-alice")]
    assert second.get_state()[VOLUMES] == saved[VOLUMES]


async def test_what_was_settled_survives_that_the_hub_forgets_the_rest(place):
    """user.stop: clear_state(), then the state is saved."""
    made = await place.settle()
    made.clear_state()
    assert made.get_state()[VOLUMES] == {"postgres-{username}": "postgres-alice"}


@pytest.mark.parametrize("value", [None, 7, "x", ["x"]], ids=repr)
def test_a_record_that_is_no_dictionary_is_none(place, value):
    made = place.spawner(state={"pod_name": "x", VOLUMES: value})
    assert VOLUMES not in made.get_state()


async def test_after_a_lost_database_it_is_found_again(place):
    await place.settle()
    before = dict(place.cluster.stored)
    await place.settle()
    assert place.cluster.stored == before


async def test_a_claim_of_any_name_is_found_by_the_owners_label(place):
    place.cluster.put(ours(name="by-hand"), recipes("postgres-alice", "bob"))
    made = await place.settle()
    assert made.get_state()[VOLUMES] == {"postgres-{username}": "by-hand"}
    assert counts(place.cluster) == {"list": 1, "read": 1}


async def test_an_earlier_claim_is_adopted_and_keeps_what_it_said(place):
    place.cluster.put(recipes(EARLIER, ERIN))
    made = await place.settle(ERIN)
    [adopted] = place.cluster.stored.values()
    assert adopted.name == EARLIER
    assert adopted.annotations[marks.USER] == adopted.annotations[marks.KUBESPAWNER_USER] == ERIN
    assert adopted.labels["component"] == "extra-pvc"
    assert made.get_state()[VOLUMES] == {"postgres-{username}": EARLIER}
    assert place.journal() == [("annotate-claim", EARLIER, "done")]


async def test_not_allowed_to_annotate_it_is_mounted_all_the_same(place):
    place.cluster.put(recipes(EARLIER, ERIN))
    place.cluster.faults["annotate"] = [Doubt("HTTP 403", status=403, retryable=False)]
    made = await place.settle(ERIN)
    assert made.get_state()[VOLUMES] == {"postgres-{username}": EARLIER}


async def test_annotating_can_be_switched_off(place):
    place.cluster.put(recipes(EARLIER, ERIN))
    await place.settle(ERIN, annotate_homes=False)
    assert place.cluster.writes() == []


async def test_servers_of_a_user_share_a_volume_whose_name_says_so(place):
    await place.settle()
    await place.settle(server="gpu")
    assert set(place.cluster.stored) == {"postgres-alice"}
    await place.settle(server="gpu", extra_pvcs=[DATA])
    await place.settle(extra_pvcs=[DATA])
    assert len(place.cluster.stored) == 3


async def test_one_that_another_server_made_meanwhile_is_taken(place):
    def meanwhile(verb, name):
        if verb == "create":
            place.cluster.put(ours())

    place.cluster.meanwhile = meanwhile
    made = await place.settle()
    assert made.get_state()[VOLUMES] == {"postgres-{username}": "postgres-alice"}
    assert counts(place.cluster)["create"] == 1


async def test_one_that_somebody_else_took_meanwhile_is_refused(place):
    bobs = ours(Owner(HUB, "bob"))
    place.cluster.meanwhile = lambda verb, _: verb == "create" and place.cluster.put(bobs)
    with pytest.raises(SpawnRefused) as caught:
        await place.settle()
    assert caught.value.code == "taken"
    assert place.cluster.stored == {"postgres-alice": bobs}


@pytest.mark.parametrize(
    ("claims", "state", "code"),
    [
        ([recipes("postgres-alice", "bob")], {}, "taken"),
        ([ours(Owner("other", "alice"))], {}, "taken"),
        ([ours(name="one"), ours(name="two")], {}, "several"),
        ([], {"postgres-{username}": "postgres-alice"}, "gone"),
        ([ours(deleting=True)], {}, "terminating"),
        ([ours(phase="Lost")], {}, "lost"),
    ],
    ids=["another's", "another hub's", "several", "gone", "terminating", "lost"],
)
async def test_a_refusal_changes_nothing_and_says_what_to_do(place, caplog, claims, state, code):
    place.cluster.put(*claims)
    with pytest.raises(SpawnRefused) as caught:
        await place.settle(state={"pod_name": "x", VOLUMES: state})
    error = caught.value
    assert (error.code, error.retryable) == (code, False)
    assert place.cluster.writes() == []
    forget = "claims forget postgres-alice --user=alice --volume='postgres-{username}'"
    command = forget if code == "gone" else "claims explain alice"
    [(_, reason, told)] = place.events
    assert reason == "VolumeRefused"
    for text in (error.story, told):
        assert f"Run: jhub-safety {command}" in text
    assert "Nothing was created or deleted." in error.story
    # Nothing of the story is shown to the user.
    assert "one of your volumes could not be mounted" in error.jupyterhub_message
    assert "postgres" not in error.jupyterhub_message
    assert error.story in caplog.text


@pytest.mark.parametrize("scheme", ["safe", "escape"])
@pytest.mark.parametrize("server", ["", "gpu", "My Server"])
@pytest.mark.parametrize("user", ["alice", ERIN, "john-2edoe", "x" * 60, "ß", "1user"])
@pytest.mark.parametrize("name", ["postgres-{username}", "db-{user_server}", DATA["name"]])
def test_the_command_line_asks_what_a_start_asks(place, name, user, server, scheme):
    """Or explain would tell of another claim than the one that is mounted."""
    state = {"pod_name": "x", VOLUMES: {name: "saved"}, FORMER_USERS: ["before"]}
    overrides = {"groups": {"db": {"capacity": "5Gi"}}}
    entry = {"name": name, "capacity": "1Gi", "overrides": overrides}
    made = place.spawner(user, server, ["db"], state, extra_pvcs=[entry], slug_scheme=scheme)
    [volume] = parse_all([entry])
    asked = Wanted.ask(
        volume,
        Owner(HUB, user, server),
        groups=["db"],
        saved="saved",
        place=Where(made.namespace, made.namespace),
        former=["before"],
        style=scheme,
    )
    assert made._wanted(volume) == asked


async def started(place, user="alice", state=None, *, home_is_named=True, **settings) -> Any:
    made = place.spawner(user, state=state, sessions="off", **settings)

    async def home() -> bool:
        return home_is_named

    made._settle = home
    await made.load_user_options()
    return made


def renamed(made, name: str) -> dict[str, Any]:
    """An administrator renames the user of a server that runs; then it stops. What is saved."""
    row = made.orm_spawner
    row.state = {**made.get_state(), FORMER_USERS: [made.user.name]}
    made.user.name = name
    made.clear_state()
    return made.get_state()


async def test_a_user_who_was_renamed_while_the_server_ran_keeps_the_volume(place):
    """The former name was forgotten at the stop; from then on the volume was somebody else's."""
    saved = renamed(await started(place), "alicia")
    assert saved[FORMER_USERS] == ["alice"]
    made = await started(place, "alicia", saved)
    (claim,) = place.cluster.stored.values()
    assert (claim.name, claim.annotations[marks.USER]) == ("postgres-alice", "alicia")
    # All that is theirs carries the new name now.
    assert FORMER_USERS not in made.get_state()


@pytest.mark.parametrize("code", [403, 503])
async def test_a_former_name_is_kept_while_a_volume_still_carries_it(place, code):
    saved = renamed(await started(place), "alicia")
    place.cluster.faults["annotate"] = [Doubt(f"HTTP {code}", status=code, retryable=False)]
    made = await started(place, "alicia", saved)
    assert made.get_state()[FORMER_USERS] == ["alice"]


async def test_a_former_name_is_kept_while_the_home_still_carries_it(place):
    saved = renamed(await started(place), "alicia")
    made = await started(place, "alicia", saved, home_is_named=False)
    assert made.get_state()[FORMER_USERS] == ["alice"]


async def test_a_former_name_is_kept_by_a_start_that_was_refused(place):
    saved = renamed(await started(place), "alicia")
    place.cluster.faults["read"] = [Doubt("HTTP 503", status=503)]
    made = place.spawner("alicia", state=saved, sessions="off")

    async def home() -> bool:
        return True

    made._settle = home
    with pytest.raises(SpawnRefused):
        await made.load_user_options()
    assert made.get_state()[FORMER_USERS] == ["alice"]


async def test_a_volume_that_an_operator_gave_up_is_made_anew(place):
    place.given_up[ALICE.hash, RECIPE["name"]] = "postgres-old"
    made = await place.settle(state={"pod_name": "x", VOLUMES: {RECIPE["name"]: "postgres-old"}})
    assert set(place.cluster.stored) == {"postgres-alice"}
    assert made.get_state()[VOLUMES] == {RECIPE["name"]: "postgres-alice"}


@pytest.mark.parametrize(
    ("volume", "given"),
    [
        pytest.param("", "postgres-alice", id="the home"),
        pytest.param("other-{username}", "postgres-alice", id="another volume"),
        pytest.param(RECIPE["name"], "postgres-before", id="an earlier claim"),
    ],
)
async def test_a_word_about_something_else_gives_no_volume_up(place, volume, given):
    place.given_up[ALICE.hash, volume] = given
    state = {"pod_name": "x", VOLUMES: {RECIPE["name"]: "postgres-alice"}}
    with pytest.raises(SpawnRefused) as caught:
        await place.settle(state=state)
    assert caught.value.code == "gone"
    assert place.cluster.writes() == []


async def test_a_refusal_names_what_the_same_start_has_made(place):
    """The home and the first entry are made before the second one is refused."""
    place.cluster.put(recipes("postgres-alice", "bob"))
    made = place.spawner(extra_pvcs=[DATA, RECIPE])
    made._made.append("claim-alice")
    with pytest.raises(SpawnRefused) as caught:
        await made._settle_extras()
    (data,) = (name for name in place.cluster.stored if name.startswith("data-"))
    assert f"made in this start, and kept: claim-alice, {data}." in caught.value.story
    assert "Nothing was created" not in caught.value.story


async def test_no_volume_is_made_on_a_listing_that_does_not_show_the_home(place):
    """An empty 200 would else give a user whose volume has another name a second one."""
    alice = Owner("default", "alice")
    made = place.spawner()
    made._home_claim = claim("claim-alice", alice.annotations("own"), alice.labels())
    with pytest.raises(SpawnRefused) as caught:
        await made._settle_extras()
    assert caught.value.retryable
    assert "does not show claim-alice" in caught.value.story
    assert place.cluster.writes() == []


async def test_a_refusal_without_the_right_to_write_events_is_one_all_the_same(place):
    place.event_fault = Doubt("HTTP 403", status=403)
    place.cluster.put(recipes("postgres-alice", "bob"))
    with pytest.raises(SpawnRefused):
        await place.settle()


@pytest.mark.parametrize("verb", ["read", "list", "create"])
async def test_doubt_is_not_absence(place, verb):
    place.cluster.faults[verb] = [Doubt("no answer within 10 s")]
    with pytest.raises(SpawnRefused) as caught:
        await place.settle()
    assert (caught.value.code, caught.value.retryable) == ("incomplete", True)
    assert "no answer within 10 s" in caught.value.story
    again = "Try again; if it stays, run: jhub-safety claims explain alice"
    assert caught.value.story.endswith(again)
    assert place.cluster.stored == {}


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("exceeded quota: storage, requested: persistentvolumeclaims=1", "resourcequota"),
        ("maximum storage usage per PersistentVolumeClaim is 2Gi", "limitrange"),
    ],
    ids=["quota", "limit"],
)
async def test_what_does_not_pass_by_itself_is_no_invitation_to_try_again(place, said, command):
    place.cluster.faults["create"] = [Doubt(FORBIDDEN + said, status=403, retryable=False)]
    with pytest.raises(SpawnRefused) as caught:
        await place.settle()
    assert (caught.value.code, caught.value.retryable) == ("incomplete", False)
    story = caught.value.story
    assert said in story
    assert "does not pass by itself" in story
    assert "Try again" not in story
    assert story.endswith(f"Run: kubectl -n default describe {command}")


async def test_a_claim_that_keeps_changing_is_refused_for_now(place):
    place.cluster.faults["create"] = [Conflict("modified") for _ in range(10)]
    with pytest.raises(SpawnRefused) as caught:
        await place.settle()
    assert (caught.value.code, caught.value.retryable) == ("incomplete", True)
    assert counts(place.cluster)["create"] == 3


async def test_a_name_that_kubernetes_does_not_take_is_refused(place):
    with pytest.raises(SpawnRefused) as caught:
        await place.settle(
            ERIN, extra_pvcs=[RECIPE | {"name": "x-{unescaped_username}-{owner_hash}"}]
        )
    assert caught.value.code == "name"
    assert "x-erin@school.edu-" in caught.value.story
    assert "Run: jhub-safety claims list --component extra-pvc" in caught.value.story
    assert place.cluster.calls == []


async def test_a_configured_identity_counts_also_when_homes_are_left_to_kubespawner(place):
    with pytest.raises(SpawnRefused) as caught:
        await place.settle(homes="off", identity_key="sub")
    assert caught.value.code == "no-identity"
    assert "SafeKubeSpawner.identity_key = 'sub' asks for" in caught.value.story
    assert "run: jhub-safety claims explain alice" in caught.value.story
    assert place.cluster.calls == []


async def test_an_entry_that_was_renamed_gives_a_new_volume_and_that_is_told(place, caplog):
    place.cluster.put(ours(name="db-alice", volume="db-{username}"))
    await place.settle()
    assert set(place.cluster.stored) == {"db-alice", "postgres-alice"}
    assert "They also have db-alice, of an entry that is no longer in extra_pvcs" in caplog.text


async def test_groups_and_users_get_what_is_meant_for_them(place):
    overrides = {
        "groups": {"big": {"capacity": "5Gi", "class": "fast"}},
        "users": {"ada": {"capacity": "9Gi"}},
    }
    entry = RECIPE | {"overrides": overrides}
    for user, groups in (("alice", []), ("bob", ["big"]), ("ada", ["big"])):
        await place.settle(user, groups=groups, extra_pvcs=[entry])
    assert {
        name: (one.capacity, one.storage_class) for name, one in place.cluster.stored.items()
    } == {
        "postgres-alice": ("1Gi", "standard"),
        "postgres-bob": ("5Gi", "fast"),
        "postgres-ada": ("9Gi", "standard"),
    }


# -- growing


def resizes(outcome: str) -> float:
    return metrics.RESIZES.labels(outcome)._value.get()


async def test_a_smaller_claim_is_enlarged(place):
    place.cluster.put(ours())
    before = resizes("asked")
    await place.settle(extra_pvcs=[RECIPE | {"capacity": "5Gi"}])
    assert place.cluster.stored["postgres-alice"].capacity == "5Gi"
    assert place.journal() == [("resize-claim", "postgres-alice", "done")]
    assert place.events == []
    assert resizes("asked") == before + 1


async def test_one_of_the_same_size_written_differently_is_left_alone(place):
    place.cluster.put(ours(capacity="1024Mi"))
    await place.settle()
    assert place.cluster.writes() == []
    assert place.events == []


@pytest.mark.parametrize(
    ("capacity", "told"),
    [("512Mi", "cannot shrink"), ("100Gi", "cannot be taken back")],
    ids=["smaller", "a slip"],
)
async def test_what_is_not_applied_is_told_once_and_starts(place, caplog, capacity, told):
    place.cluster.put(ours())
    for _ in range(3):
        await place.settle(extra_pvcs=[RECIPE | {"capacity": capacity}])
    assert place.cluster.writes() == []
    [(name, reason, message)] = place.events
    assert (name, reason) == ("postgres-alice", "VolumeNotAsConfigured")
    assert told in message
    assert caplog.text.count("starts all the same") == 1


async def test_a_claim_that_cannot_be_enlarged_starts_as_it_is(place):
    place.cluster.put(ours())
    place.cluster.faults["resize"] = [Doubt("HTTP 403 exceeded quota", status=403)]
    before = resizes("failed")
    made = await place.settle(extra_pvcs=[RECIPE | {"capacity": "5Gi"}])
    assert made.get_state()[VOLUMES] == {"postgres-{username}": "postgres-alice"}
    [(_, _, message)] = place.events
    assert "not enlarged: HTTP 403 exceeded quota" in message
    assert place.journal() == [
        ("resize-claim", "postgres-alice", "failed: HTTP 403 exceeded quota")
    ]
    assert resizes("failed") == before + 1


FORBIDDEN = 'HTTP 403 persistentvolumeclaims "postgres-alice" is forbidden: '


@pytest.mark.parametrize(
    ("said", "why", "command"),
    [
        pytest.param(
            'User "system:serviceaccount:jhub:hub" cannot patch resource "persistentvolumeclaims"',
            "the hub may not change claims",
            "kubectl -n default apply -f examples/helm/rbac.yaml",
            id="no permission",
        ),
        pytest.param(
            "exceeded quota: storage, requested: requests.storage=4Gi",
            "a quota of the namespace leaves no room for it",
            "kubectl -n default describe resourcequota",
            id="a quota",
        ),
        pytest.param(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions",
            "its storage class does not let volumes grow",
            "kubectl get storageclass",
            id="a class that cannot expand",
        ),
    ],
)
async def test_why_a_claim_did_not_grow_is_told_of_whom_and_with_a_command(
    place, caplog, said, why, command
):
    place.cluster.put(ours())
    fault = Doubt(FORBIDDEN + said, status=403, retryable=False)
    place.cluster.faults["resize"] = [fault, fault]
    for server in ("gpu", ""):
        await place.settle(server=server, extra_pvcs=[RECIPE | {"capacity": "5Gi"}])
    [(name, reason, message)] = place.events
    assert (name, reason) == ("postgres-alice", "VolumeNotAsConfigured")
    sized = "claim postgres-alice has 1Gi, configured is 5Gi; "
    assert message.startswith(f"{sized}{why}")
    assert "The server of alice:gpu starts all the same." in message
    assert message.endswith(f" Run: {command}")
    # Of the user's other server the same is not told again; the log says it in the same words.
    assert caplog.messages.count(message) == 1
    assert caplog.text.count("starts all the same") == 1


async def test_what_kubernetes_says_of_a_resize_is_told(place):
    place.cluster.put(ours(conditions=(("FileSystemResizePending", "waiting for a pod"),)))
    await place.settle()
    [(_, _, message)] = place.events
    assert "its file system grows when a lab mounts it (waiting for a pod)" in message
    assert message.endswith("Run: kubectl -n default describe pvc postgres-alice")


@pytest.mark.parametrize("mode", ["warn", "refuse"])
async def test_another_class_or_access_mode_is_told_or_refused(place, mode):
    place.cluster.put(ours(storage_class="slow", access_modes=("ReadWriteMany",)))
    if mode == "refuse":
        with pytest.raises(SpawnRefused) as caught:
            await place.settle(extra_pvc_mismatch=mode)
        assert caught.value.code == "mismatch"
        assert "slow" in caught.value.story
        assert "ReadWriteMany" in caught.value.story
        assert 'extra_pvc_mismatch = "warn"' in caught.value.story
        run = "Run: kubectl -n default describe pvc postgres-alice"
        assert caught.value.story.endswith(run)
    else:
        await place.settle(extra_pvc_mismatch=mode)
        assert len(place.events) == 2
    assert place.cluster.writes() == []


# -- the recipe that is still in extraConfig


async def test_the_recipe_may_ask_for_its_claims_before_the_start(place, monkeypatch):
    """Its pre_spawn_hook calls KubeSpawner's own method; the claim is made when it is settled."""
    made = place.spawner()
    asked = SimpleNamespace(metadata=SimpleNamespace(name="postgres-alice"))
    assert await made._make_create_pvc_request(asked, 3) is True
    assert place.cluster.calls == []
    await made._settle_extras()
    assert set(place.cluster.stored) == {"postgres-alice"}


async def test_a_home_is_still_never_made_that_way(place):
    made = place.spawner()
    with pytest.raises(RuntimeError, match="was not settled"):
        await made._make_create_pvc_request(
            SimpleNamespace(metadata=SimpleNamespace(name=made.pvc_name)), 3
        )


# -- mounting

OWN_VOLUMES = [
    {"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}},
    {"name": "db", "persistentVolumeClaim": {"claimName": "postgres-{username}", "readOnly": True}},
    {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}},
    {"name": "scratch", "emptyDir": {}},
]
OWN_MOUNTS = [
    {"name": "home", "mountPath": "/home/jovyan"},
    {"name": "db", "mountPath": "/db", "subPath": "data"},
]


@pytest.fixture
def pod(place, monkeypatch):
    """The pod of a start: KubeSpawner's own manifest, without a hub to tell its environment."""
    monkeypatch.setattr(KubeSpawner, "get_env", lambda _: {})
    monkeypatch.setattr(KubeSpawner, "get_args", lambda _: [])

    async def made(user="alice", **settings):
        settings = {"volumes": OWN_VOLUMES, "volume_mounts": OWN_MOUNTS, "cmd": ["x"]} | settings
        spawner = await place.settle(user, **settings)
        manifest = await spawner.get_pod_manifest()
        plain = await KubeSpawner.get_pod_manifest(spawner)
        return manifest, plain, spawner

    return made


def claims_of(manifest) -> dict[str, str]:
    found = {}
    for volume in manifest.spec.volumes:
        source = volume.persistent_volume_claim
        if source is not None:
            name = source["claimName"] if isinstance(source, dict) else source.claim_name
            found[volume.name] = name
    return found


async def test_a_volume_with_a_path_is_mounted_beside_what_the_hub_set(pod, place):
    manifest, plain, _ = await pod(extra_pvcs=[DATA | {"sub_path": "of-{username}"}])
    assert manifest.spec.volumes[:-1] == plain.spec.volumes
    notebook, before = manifest.spec.containers[0], plain.spec.containers[0]
    assert notebook.volume_mounts[:-1] == before.volume_mounts
    [data] = place.cluster.stored
    mount = notebook.volume_mounts[-1]
    assert claims_of(manifest)[mount.name] == data
    assert (mount.mount_path, mount.sub_path, mount.read_only) == ("/data", "of-alice", None)
    assert mount.name not in {one["name"] for one in OWN_VOLUMES}


async def test_read_only_and_without_a_sub_path(pod):
    manifest, _, _ = await pod(extra_pvcs=[DATA | {"read_only": True}])
    mount = manifest.spec.containers[0].volume_mounts[-1]
    assert (mount.sub_path, mount.read_only) == (None, True)


async def test_each_volume_with_a_path_has_a_name_of_its_own(pod):
    two = [DATA, DATA | {"name": "more-{owner_hash}", "mount_path": "/more"}]
    manifest, _, _ = await pod(extra_pvcs=two)
    names = [volume.name for volume in manifest.spec.volumes]
    assert len(names) == len(set(names)) == len(OWN_VOLUMES) + 2


async def test_a_volume_without_a_path_is_left_to_the_hubs_own(pod):
    manifest, plain, _ = await pod()
    assert manifest.to_dict() == plain.to_dict()
    assert claims_of(manifest)["db"] == "postgres-alice"


async def test_the_hubs_own_volume_follows_an_adopted_claim(pod, place):
    place.cluster.put(recipes(EARLIER, ERIN))
    manifest, plain, spawner = await pod(ERIN)
    assert claims_of(plain)["db"] == "postgres-erin-school-edu---7c0ec5fa"
    assert claims_of(manifest) == {"home": spawner.pvc_name, "db": EARLIER, "shared": "shared"}
    # What else was set there stays.
    [db] = [volume for volume in manifest.spec.volumes if volume.name == "db"]
    assert db.persistent_volume_claim["readOnly"] is True
    assert manifest.spec.containers[0].volume_mounts == plain.spec.containers[0].volume_mounts


async def test_without_extra_volumes_the_pod_is_kubespawners(pod):
    manifest, plain, _ = await pod(extra_pvcs=[])
    assert manifest.to_dict() == plain.to_dict()


# -- settings


@pytest.fixture
def chart(monkeypatch):
    """The chart's values, as its hub image has them: ``from z2jh import get_config``."""

    def made(values: dict[str, Any]) -> None:
        module = ModuleType("z2jh")
        module.get_config = lambda key, default=None: values.get(key, default)
        monkeypatch.setitem(sys.modules, "z2jh", module)

    return made


def test_the_charts_values_count_where_nothing_is_set(chart):
    chart({"custom.singleuser.extraPVCs": [RECIPE]})
    assert SafetySettings().extra_pvcs == [RECIPE]
    own = SafetySettings(config=Config(SafeKubeSpawner={"extra_pvcs": [DATA]}))
    assert own.extra_pvcs == [DATA]
    none = SafetySettings(config=Config(SafeKubeSpawner={"extra_pvcs": []}))
    assert none.extra_pvcs == []


@pytest.mark.parametrize("value", [None, [], {}], ids=repr)
def test_nothing_in_the_charts_values_is_nothing(chart, value):
    """2i2c's own default is an empty list; a value may also be set to null."""
    chart({"custom.singleuser.extraPVCs": value})
    assert SafetySettings().extra_pvcs == []


def test_outside_of_the_charts_hub_there_are_no_values(monkeypatch):
    monkeypatch.setitem(sys.modules, "z2jh", None)
    assert SafetySettings().extra_pvcs == []
    assert from_chart("any.key", "otherwise") == "otherwise"


def left_to_the_chart(place, **settings):
    """A spawner of a hub that has no ``extra_pvcs`` of its own."""
    made = place.spawner(**settings)
    del made.config.SafeKubeSpawner["extra_pvcs"]
    again = SafeKubeSpawner(
        _mock=True, user=made.user, orm_spawner=made.orm_spawner, config=made.config
    )
    again._claims_api = lambda: place.cluster
    return again


async def test_the_charts_values_make_volumes_as_they_stand(place, chart):
    chart({"custom.singleuser.extraPVCs": [RECIPE]})
    await left_to_the_chart(place)._settle_extras()
    assert set(place.cluster.stored) == {"postgres-alice"}


@pytest.mark.parametrize("homes", ["observe", "off"])
@pytest.mark.parametrize(
    "there",
    [
        pytest.param((), id="none there"),
        pytest.param((recipes("postgres-alice", "alice"),), id="theirs"),
        pytest.param((recipes("postgres-alice", "bob"),), id="somebody else's"),
        pytest.param((claim("postgres-alice", deleting=True),), id="being deleted"),
    ],
)
async def test_the_charts_values_are_left_to_the_hubs_own_hook_where_homes_are(
    place, chart, homes, there
):
    """Observing refused starts, wrote on claims and enlarged them, of 2i2c's recipe."""
    chart({"custom.singleuser.extraPVCs": [RECIPE | {"capacity": "5Gi"}]})
    place.cluster.put(*there)
    made = left_to_the_chart(place, homes=homes)
    await made._settle_extras()
    assert place.cluster.calls == []
    assert not made._is_extra("postgres-alice"), "the hook's own request must not be swallowed"
    # What the command line explains is what enforcing will do.
    assert SafetySettings(config=Config(SafetySettings={"homes": homes})).extra_pvcs


@pytest.mark.parametrize("homes", ["observe", "off"])
async def test_a_list_of_ones_own_counts_in_every_mode(place, chart, homes):
    chart({"custom.singleuser.extraPVCs": [DATA]})
    await place.settle(homes=homes)
    assert set(place.cluster.stored) == {"postgres-alice"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"extra_pvcs": [{"name": "x-{userid}", "capacity": "1Gi"}]}, "SafeKubeSpawner.extra_pvcs"),
        ({"extra_pvcs": [RECIPE, RECIPE]}, "two entries"),
        ({"extra_pvcs": RECIPE}, "extra_pvcs"),
        ({"extra_pvc_mismatch": "ignore"}, "extra_pvc_mismatch"),
        ({"max_growth": -1}, "max_growth"),
        ({"grow_homes": "yes please"}, "grow_homes"),
    ],
    ids=["userid", "twice", "no list", "mismatch", "max_growth", "grow_homes"],
)
def test_a_setting_that_cannot_be_used_is_an_error_when_the_hub_starts(settings, told):
    with pytest.raises((ConfigError, TraitError)) as caught:
        check_settings(SafeKubeSpawner, Config(SafeKubeSpawner=settings))
    assert told in str(caught.value)


# -- homes


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        ({"grow_homes": True, "storage_capacity": "20Gi"}, "20Gi"),
        ({"grow_homes": True, "storage_capacity": "5Gi"}, "10Gi"),
        ({"grow_homes": True, "storage_capacity": "500Gi"}, "10Gi"),
        ({"grow_homes": True}, "10Gi"),
        ({"storage_capacity": "20Gi"}, "10Gi"),
    ],
    ids=["larger", "smaller", "a slip", "no capacity is configured", "not asked for"],
)
async def test_homes_grow_when_that_is_asked_for(place, monkeypatch, settings, capacity):
    owner = Owner(HUB, "alice")
    home = claim(owner.claim_name, owner.annotations("x"), owner.labels(), capacity="10Gi")
    place.cluster.put(home)
    made = place.spawner(storage_pvc_ensure=True, **settings)
    made.load_state({"pod_name": "x", "pvc_name": home.name})

    async def no_mark(_):
        return None

    monkeypatch.setattr(made, "_set_up", no_mark)
    await made._settle()
    assert place.cluster.stored[home.name].capacity == capacity
    changed = replace(home, capacity=capacity, resource_version="2")
    assert place.cluster.stored[home.name] == (changed if capacity != "10Gi" else home)


# -- the example


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def test_the_example_works_as_it_stands(place):
    config = PyFileConfigLoader("volumes_config.py", path=str(EXAMPLES)).load_config()
    check_settings(SafeKubeSpawner, config)
    declared = config.SafeKubeSpawner.extra_pvcs
    for user, groups in (("bob", ["databases-2026", "databases-projects"]), ("ada", [])):
        await place.settle(user, groups=groups, extra_pvcs=declared)
    sizes = {name: one.capacity for name, one in place.cluster.stored.items()}
    assert (sizes["postgres-bob"], sizes["postgres-ada"]) == ("20Gi", "50Gi")
    assert len(sizes) == 4
