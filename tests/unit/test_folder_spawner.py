"""Homes on one shared claim, on a spawner: what the pod mounts, and what follows from a look."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from jupyterhub import orm
from kubernetes_asyncio import client as kube
from kubespawner import KubeSpawner
from sqlalchemy import event
from traitlets import TraitError
from traitlets.config import Config

from jhub_safety import folders
from jhub_safety.claimants import others
from jhub_safety.cli import cli
from jhub_safety.cli.connection import Connection, Options
from jhub_safety.cluster.labs import InitState, Lab
from jhub_safety.cluster.notes import folder_note
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.homes import HomesMixin
from jhub_safety.hubconfig import understand
from jhub_safety.hubdb.records import FOLDER
from jhub_safety.labs import LabsMixin
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from jhub_safety.settings import SafetySettings
from jhub_safety.spawner import SafeKubeSpawner
from jhub_safety.volumes import looking
from jhub_safety.volumes.folders import Decision, Question, Row, generations
from jhub_safety.volumes.folders import folders as folders_for
from jhub_safety.volumes.names import Place

ERIN = "erin@school.edu"
OLD, TODAY = "erin-40school-2eedu", "erin-school-edu---7c0ec5fa"
#: Where KubeSpawner 6 kept the files of a user called like OLD.
TAKEN = "erin-2d40school-2d2eedu"
HOME = {"name": "home", "persistentVolumeClaim": {"claimName": "homes"}}
MOUNT = {"name": "home", "mountPath": "/home/jovyan", "subPath": "{username}"}
SHARED = {"name": "home", "mountPath": "/shared", "subPath": "_shared", "readOnly": True}


class Secrets:
    """The notes and marks of a namespace."""

    name = "jhub-safety-folder-x"

    def __init__(self) -> None:
        self.note: dict[str, str] | None = None
        self.marks: set[str] = set()
        self.fault: Doubt | None = None

    async def read(self):
        if self.fault:
            raise self.fault
        return self.note

    async def write(self, text):
        self.note = dict(text)


class Labs:
    """One pod, as the API server has it."""

    def __init__(self) -> None:
        self.lab: Lab | None = None
        self.deleted: list[tuple[str, int | None]] = []
        self.fault: Exception | None = None

    async def read(self, _):
        return self.lab

    async def delete(self, lab, *, grace):
        if self.fault:
            raise self.fault
        self.deleted.append((lab.uid, grace))
        self.lab = None


@pytest.fixture
def stage(monkeypatch, tmp_path):
    monkeypatch.setattr("kubespawner.spawner.load_config", lambda **_: None)
    monkeypatch.setattr("kubespawner.spawner.shared_client", lambda _: None)
    monkeypatch.setattr(HomesMixin, "_said", set())
    # Set for good by any test before that finished a hub's configuration.
    monkeypatch.setattr(LabsMixin, "on_gone", None)
    monkeypatch.setattr(HomesMixin, "_marks", {})
    monkeypatch.setattr(folders, "_PAUSE", 0)
    made = SimpleNamespace(secrets=Secrets(), labs=Labs(), events=[], folder=tmp_path)

    async def warn(_, __, claim, ___, reason, message):
        made.events.append((claim, reason, message))

    async def mark_uid(_, __, ___, mark, **____):
        return "uid" if mark in made.secrets.marks else None

    async def set_up(_, __, ___, mark, **____):
        made.secrets.marks.add(mark)

    monkeypatch.setattr(folders.events, "warn_about_claim", warn)
    monkeypatch.setattr(folders.landmark, "uid", mark_uid)
    monkeypatch.setattr(folders.landmark, "set_up", set_up)

    def spawner(user=ERIN, server="", state=None, row=None, **settings) -> Any:
        config = Config()
        config.SafeKubeSpawner.update(
            hub_name="hub", journal=str(tmp_path / "journal"), home_sub_path="{username}"
        )
        config.KubeSpawner.update(
            storage_pvc_ensure=False, volumes=[HOME], volume_mounts=[MOUNT, SHARED], cmd=["lab"]
        )
        config.SafeKubeSpawner.update(settings)
        person = SimpleNamespace(name=user, id=1, url="/user/x/", groups=[])
        row = row or orm.Spawner(name=server, state=state or {})
        one = SafeKubeSpawner(_mock=True, user=person, orm_spawner=row, config=config)
        one._folder_note = lambda: made.secrets
        one._labs_api = lambda: made.labs
        if state:
            one.load_state(state)
        return one

    made.spawner = spawner
    return made


async def manifest(one: Any) -> kube.V1Pod:
    await one._settle_folder()
    return await one.get_pod_manifest()


def paths(pod: kube.V1Pod, container: str = "notebook") -> dict[str, str | None]:
    """Sub path by mount path."""
    parts = kube.ApiClient.sanitize_for_serialization(kube.ApiClient.__new__(kube.ApiClient), pod)
    spec = parts["spec"]
    found = {
        one["name"]: {m["mountPath"]: m.get("subPath") for m in one.get("volumeMounts", [])}
        for one in [*spec["containers"], *spec.get("initContainers", [])]
    }
    return found[container]


# -- what is mounted

OTHERS = {
    "init_containers": [{"name": "own", "image": "x", "volumeMounts": [MOUNT, SHARED]}],
    "extra_containers": [{"name": "side", "image": "x", "volumeMounts": [MOUNT]}],
}


@pytest.mark.parametrize("container", ["notebook", "own", "side"])
async def test_every_container_mounts_the_folder_that_was_found(stage, container):
    pod = await manifest(stage.spawner(state={FOLDER: OLD}, **OTHERS))
    assert paths(pod, container)["/home/jovyan"] == OLD
    assert paths(pod, container).get("/shared", "_shared") == "_shared"


async def test_without_a_record_todays_folder_is_mounted(stage):
    assert paths(await manifest(stage.spawner()))["/home/jovyan"] == TODAY


async def test_init_containers_of_the_pods_own_configuration_follow_too(stage):
    own = {"initContainers": [{"name": "own", "image": "x", "volumeMounts": [MOUNT]}]}
    pod = await manifest(stage.spawner(state={FOLDER: OLD}, extra_pod_config=own))
    assert paths(pod, "own") == {"/home/jovyan": OLD}


async def test_a_folder_below_the_home_follows_it(stage):
    below = {**MOUNT, "mountPath": "/cache", "subPath": "{username}/.cache"}
    one = stage.spawner(state={FOLDER: OLD}, volume_mounts=[MOUNT, below])
    assert paths(await manifest(one))["/cache"] == f"{OLD}/.cache"


async def test_a_fixed_sub_path_that_looks_like_a_users_is_left_alone(stage):
    fixed = {**SHARED, "subPath": "ada"}
    one = stage.spawner("ada", state={FOLDER: "ada-before"}, volume_mounts=[MOUNT, fixed])
    assert paths(await manifest(one)) == {"/home/jovyan": "ada-before", "/shared": "ada"}


async def test_other_claims_stay_as_they_are_rendered(stage):
    scratch = {"name": "scratch", "persistentVolumeClaim": {"claimName": "fast"}}
    mount = {**MOUNT, "name": "scratch", "mountPath": "/scratch"}
    settings = {"volumes": [HOME, scratch], "volume_mounts": [mount, MOUNT]}
    one = stage.spawner(state={FOLDER: OLD}, home_volume="home", **settings)
    assert paths(await manifest(one)) == {"/home/jovyan": OLD, "/scratch": TODAY}
    with pytest.raises(SpawnRefused, match="folder-odd"):
        await manifest(stage.spawner(state={FOLDER: OLD}, **settings))


async def test_two_volumes_of_one_claim_are_one(stage):
    mount = {**MOUNT, "name": "again", "mountPath": "/again"}
    one = stage.spawner(
        state={FOLDER: OLD}, volumes=[HOME, {**HOME, "name": "again"}], volume_mounts=[MOUNT, mount]
    )
    assert set(paths(await manifest(one)).values()) == {OLD}


async def test_a_template_that_nothing_mounts_is_refused(stage):
    with pytest.raises(SpawnRefused) as raised:
        await manifest(stage.spawner(home_sub_path="home/{username}"))
    assert "letter by letter" in raised.value.story


async def test_the_look_comes_first_and_sees_the_root_read_only(stage):
    pod = await manifest(stage.spawner(state={FOLDER: OLD}, uid=1000, **OTHERS))
    first, *rest = pod.spec.init_containers
    assert [one.name for one in rest] == ["own"]
    assert first.name == looking.NAME
    (mount,) = first.volume_mounts
    assert (mount.name, mount.read_only, mount.sub_path) == ("home", True, None)
    assert (first.security_context.run_as_user, first.args) == (1000, ["must", "0", OLD, TODAY])


@pytest.mark.parametrize(
    "settings", [{"home_sub_path": ""}, {"homes": "off"}, {"homes": "observe"}]
)
async def test_switched_off_nothing_is_changed(stage, settings):
    one = stage.spawner(**settings)
    one_pod = await manifest(one)
    assert one_pod.spec.init_containers is None
    assert paths(one_pod) == {"/home/jovyan": TODAY, "/shared": "_shared"}
    assert FOLDER not in one.get_state()


# -- what is asked


async def test_an_operators_word_beats_the_record(stage):
    stage.secrets.note = {"folder": "archive/erin", "new": "no"}
    pod = await manifest(stage.spawner(state={FOLDER: OLD}))
    assert paths(pod)["/home/jovyan"] == "archive/erin"
    assert pod.spec.init_containers[0].args[0] == "must"


@pytest.mark.parametrize(
    ("note", "retryable"),
    [
        pytest.param(None, True, id="not readable"),
        pytest.param({"folder": "../etc"}, True, id="no folder"),
    ],
)
async def test_a_note_that_cannot_be_read_is_doubt(stage, note, retryable):
    stage.secrets.note = note
    stage.secrets.fault = None if note else Doubt("HTTP 503")
    with pytest.raises(SpawnRefused, match="folder-incomplete") as raised:
        await manifest(stage.spawner())
    assert raised.value.retryable is retryable


@pytest.mark.parametrize(
    ("state", "ran"),
    [
        pytest.param({}, False, id="never"),
        pytest.param({"pod_name": "jupyter-x"}, False, id="under KubeSpawner 6"),
        pytest.param({"kubespawner_version": "7.1.0"}, True, id="under KubeSpawner 7"),
        pytest.param({"kubespawner_version": "unknown"}, False, id="not known"),
        pytest.param({"kubespawner_version": "7.1.0", FOLDER: ""}, False, id="refused by us"),
    ],
)
async def test_a_refused_start_is_no_proof_of_having_run(stage, state, ran):
    one = stage.spawner(state=state)
    assert one._ran_before is ran
    again = stage.spawner(state=one.get_state())
    assert again._ran_before is ran


# -- what follows from a look

FOUND_OLD = InitState(looking.REPORT, "0 absent\n1 folder\n")
FOUND_BOTH = InitState(looking.REPORT, "0 folder\n1 folder\n")
WENT_ON = InitState(0)


def _lab(one, state, *, nonce=None, uid="uid-1") -> Lab:
    return Lab(
        one.pod_name,
        one.namespace,
        uid,
        "Pending",
        claims=("homes",),
        annotations={folders.LOOK: nonce or one._look.nonce, folders.MOUNTED: TODAY},
        inits={looking.NAME: state},
    )


def play(stage, monkeypatch, one, *states):
    """Each start makes a lab whose look ends as *states* say."""
    begun: list[str] = []
    left = list(states)

    async def start(self):
        await self.load_user_options()
        pod = await self.get_pod_manifest()
        begun.append(paths(pod)["/home/jovyan"])
        self._nothing_started = False
        stage.labs.lab = _lab(self, left.pop(0), uid=f"uid-{len(begun)}")
        stage.labs.lab.annotations[folders.MOUNTED] = begun[-1]
        if stage.labs.lab.inits[looking.NAME].exit_code != 0:
            await folders.asyncio.Event().wait()
        return "http://lab"

    async def options(self):
        return None

    monkeypatch.setattr(KubeSpawner, "_start", start)
    monkeypatch.setattr(KubeSpawner, "load_user_options", options)
    monkeypatch.setattr(type(one), "_reflected_lab", lambda _: stage.labs.lab)
    monkeypatch.setattr(type(one), "_set_up", lambda *_: _uid(stage))
    return begun


async def _uid(stage):
    stage.secrets.marks.add("folders")
    return "uid"


async def test_a_found_folder_is_recorded_before_the_second_lab(stage, monkeypatch):
    one = stage.spawner()
    begun = play(stage, monkeypatch, one, FOUND_OLD, WENT_ON)
    assert await one._start() == "http://lab"
    assert begun == [TODAY, OLD]
    assert stage.labs.deleted == [("uid-1", 0)]
    assert one.orm_spawner.state[FOLDER] == OLD
    assert one.get_state()[FOLDER] == OLD
    lines = [json.loads(line) for line in (stage.folder / "journal").read_text().splitlines()]
    assert [(line["kind"], line["uid"], line["outcome"]) for line in lines] == [
        ("delete-lab", "uid-1", "done")
    ]


async def test_a_new_folder_is_on_record_once_a_lab_has_run_in_it(stage, monkeypatch):
    one = stage.spawner()
    begun = play(stage, monkeypatch, one, WENT_ON)
    await one._settle_folder()
    assert one.get_state()[FOLDER] == ""
    await one._start()
    assert (begun, one.get_state()[FOLDER]) == ([TODAY], TODAY)
    assert stage.labs.deleted == []
    assert stage.secrets.marks == {"folders"}


async def test_two_folders_leave_no_lab_and_no_record(stage, monkeypatch):
    one = stage.spawner()
    play(stage, monkeypatch, one, FOUND_BOTH)
    with pytest.raises(SpawnRefused, match="folder-several") as raised:
        await one._start()
    assert not raised.value.retryable
    assert f"homes choose FOLDER --user={ERIN}" in raised.value.story
    assert stage.labs.deleted == [("uid-1", 0)]
    assert one.get_state()[FOLDER] == ""
    assert one._nothing_started
    assert [event[:2] for event in stage.events] == [("homes", "HomeRefused")]


async def test_a_lab_that_cannot_be_deleted_is_no_reason_for_a_second_one(stage, monkeypatch):
    one = stage.spawner()
    begun = play(stage, monkeypatch, one, FOUND_OLD)
    stage.labs.fault = Conflict("another lab")
    with pytest.raises(SpawnRefused, match="folder-incomplete"):
        await one._start()
    assert begun == [TODAY]
    assert one.get_state()[FOLDER] == ""
    assert not one._nothing_started


async def test_what_changes_at_each_look_is_given_up(stage, monkeypatch):
    one = stage.spawner()
    play(
        stage, monkeypatch, one, FOUND_OLD, *[InitState(looking.REPORT, "0 folder\n1 absent\n")] * 2
    )
    with pytest.raises(SpawnRefused, match="folder-incomplete"):
        await one._start()
    assert stage.labs.lab is None


async def test_a_lab_of_the_start_before_says_nothing(stage, monkeypatch):
    one = stage.spawner()
    await one._settle_folder()
    stale = _lab(one, FOUND_BOTH, nonce="of yesterday")
    assert not one._stands_still(stale, one._look)
    one._relinked = True
    assert one._stands_still(stale, one._look)


async def test_a_lab_that_an_interrupted_start_left_is_deleted_and_the_start_goes_on(
    stage, monkeypatch
):
    one = stage.spawner()
    await one._settle_folder()
    stage.labs.lab = _lab(one, FOUND_BOTH, nonce="of yesterday")
    await one._look_again(one._look, stage.labs.lab)
    assert stage.labs.deleted == [("uid-1", 0)]
    assert one.get_state()[FOLDER] == ""


@pytest.mark.parametrize(
    ("state", "status"),
    [
        pytest.param(FOUND_BOTH, 1, id="it will never go on"),
        pytest.param(InitState(looking.REPORT, "", "CrashLoopBackOff"), 1, id="it waits"),
        pytest.param(WENT_ON, None, id="it went on"),
        pytest.param(InitState(), None, id="it looks"),
    ],
)
async def test_a_lab_that_waits_for_a_killed_hub_is_no_session(stage, monkeypatch, state, status):
    one = stage.spawner()
    play(stage, monkeypatch, one)
    monkeypatch.setattr(LabsMixin, "poll", _nothing)
    await one._settle_folder()
    stage.labs.lab = _lab(one, state, nonce="of yesterday")
    assert await one.poll() == status
    assert bool(stage.labs.deleted) == (status == 1)


async def test_a_lab_that_runs_is_never_taken_for_one_that_waits(stage, monkeypatch):
    one = stage.spawner()
    play(stage, monkeypatch, one)
    monkeypatch.setattr(LabsMixin, "poll", _nothing)
    await one._settle_folder()
    stage.labs.lab = replace(_lab(one, FOUND_BOTH), phase="Running")
    assert not one._stands_still(stage.labs.lab, one._look)
    assert await one.poll() is None
    assert stage.labs.deleted == []


async def test_a_poll_while_starting_leaves_the_look_to_the_start(stage, monkeypatch):
    one = stage.spawner()
    play(stage, monkeypatch, one)
    monkeypatch.setattr(LabsMixin, "poll", _nothing)
    await one._settle_folder()
    stage.labs.lab = _lab(one, FOUND_BOTH)
    one._spawn_pending = True
    assert await one.poll() is None
    assert stage.labs.deleted == []


async def _nothing(_):
    return None


async def test_the_folder_of_a_lab_that_was_taken_up_is_recorded(stage, monkeypatch):
    one = stage.spawner()
    play(stage, monkeypatch, one)
    await one._settle_folder()
    stage.labs.lab = _lab(one, WENT_ON, nonce="of yesterday")
    stage.labs.lab.annotations[folders.MOUNTED] = OLD
    await one._remember_folder()
    assert one.get_state()[FOLDER] == OLD


async def test_a_folder_that_may_be_new_may_be_new_once(stage, monkeypatch):
    stage.secrets.note = {"folder": "fresh", "new": "yes"}
    one = stage.spawner()
    begun = play(stage, monkeypatch, one, WENT_ON, WENT_ON)
    await one._start()
    assert stage.secrets.note["new"] == "no"
    await one._start()
    assert begun == ["fresh", "fresh"]
    assert one._look.question.mode == "must"


# -- who else may have it


@pytest.fixture
def db():
    made = orm.new_session_factory("sqlite:///:memory:")()
    yield made
    made.close()
    made.get_bind().dispose()


def add(db, name, server=None, state=None):
    user = db.query(orm.User).filter_by(name=name).first() or orm.User(name=name)
    db.add(user)
    if server is not None:
        row = orm.Spawner(name=server, user=user, state=state)
        db.add(row)
    db.commit()


def claimed(db, user):
    every, place = generations("{username}", []), Place("jhub", "jhub")
    owner = Owner("hub", user)
    names = folders_for(owner, every, place)
    return others(db, Question(owner, names[0], names), every, place, ())


@pytest.mark.parametrize(
    ("user", "known", "rivals", "guesses"),
    [
        pytest.param("ada", ["ada", "bob"], {}, {}, id="a plain name"),
        pytest.param(ERIN, [ERIN], {}, {OLD: OLD}, id="nobody is called like the folder"),
        pytest.param(ERIN, [ERIN, OLD], {OLD: OLD}, {}, id="somebody is called like the folder"),
        pytest.param(
            OLD, [OLD, ERIN], {OLD: ERIN}, {TAKEN: TAKEN}, id="called like another's folder"
        ),
        pytest.param(
            OLD,
            [OLD],
            {},
            {OLD: ERIN, TAKEN: TAKEN},
            id="called like the folder of one not known",
        ),
    ],
)
def test_who_else_may_have_a_folder_by_its_name(db, user, known, rivals, guesses):
    for name in known:
        add(db, name)
    assert claimed(db, user) == (rivals, guesses)


def test_a_folder_on_another_users_record_is_theirs(db):
    add(db, "bob", "", {FOLDER: "ada"})
    add(db, "carol", "", {"pvc_name": "ada"})
    assert claimed(db, "ada") == ({"ada": "bob"}, {})


def test_ones_own_other_servers_are_no_rivals(db):
    add(db, ERIN, "gpu", {FOLDER: OLD})
    assert claimed(db, ERIN)[0] == {}


@pytest.mark.parametrize(
    ("user", "twin", "folder"),
    [
        pytest.param(ERIN, "erin.school.edu", "erin-school-edu---00000000", id="letters"),
        pytest.param("1a.b", "1a-b-", "x-1a-b---00000000", id="a digit first"),
        pytest.param("雪", "雨", "x---00000000", id="no letters"),
    ],
)
def test_a_hash_that_two_users_share_is_found(db, monkeypatch, user, twin, folder):
    monkeypatch.setattr("jhub_safety.volumes.slugs.hashlib", SimpleNamespace(sha256=_Same))
    for name in ("e.rin", user, twin):
        add(db, name)
    assert claimed(db, user)[0].get(folder) == twin


@pytest.mark.parametrize(
    ("servers", "rivals"),
    [
        pytest.param([], {}, id="no such server"),
        pytest.param(["a"], {"ada": "ad/a"}, id="a server that runs the names together"),
    ],
)
def test_only_servers_that_there_are_count_where_names_run_together(db, servers, rivals):
    every, place = generations("{username}{servername}", []), Place("jhub", "jhub")
    owner = Owner("hub", "ada")
    add(db, "ad")
    for server in servers:
        add(db, "ad", server, {})
    asked = Question(owner, "ada", folders_for(owner, every, place))
    assert others(db, asked, every, place, ()) == (rivals, {})


class _Same:
    def __init__(self, _):
        pass

    def hexdigest(self):
        return "0" * 64


async def test_the_records_of_a_users_servers_count_for_each_of_them(stage, db):
    add(db, ERIN, "gpu", {FOLDER: OLD})
    add(db, ERIN, "", {})
    row = next(one for one in db.query(orm.Spawner) if one.name == "")
    one = stage.spawner(row=row)
    assert paths(await manifest(one))["/home/jovyan"] == OLD
    add(db, ERIN, "third", {FOLDER: TODAY})
    with pytest.raises(SpawnRefused, match="folder-conflict"):
        await manifest(one)


CHOSEN = {"folder": "archive/twin", "new": "no"}


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        pytest.param(("renamed@school.edu", ""), True, id="another user's"),
        pytest.param(("renamed@school.edu", "gpu"), True, id="another user's named server"),
        pytest.param((ERIN, "gpu"), False, id="one's own other server"),
        pytest.param(None, False, id="nobody's"),
    ],
)
async def test_a_folder_chosen_for_a_name_is_not_its_next_holders_while_the_renamed_has_it(
    stage, db, named, refused
):
    """The note stays with the name; who was renamed goes on by record."""
    if named is not None:
        add(db, *named, {FOLDER: CHOSEN["folder"]})
    add(db, ERIN, "", {})
    stage.secrets.note = dict(CHOSEN)
    rows = {(one.user.name, one.name): one for one in db.query(orm.Spawner)}
    one = stage.spawner(row=rows[ERIN, ""])
    if not refused:
        assert paths(await manifest(one))["/home/jovyan"] == "archive/twin"
        return
    with pytest.raises(SpawnRefused, match="folder-unproven") as raised:
        await one._settle_folder()
    whose = "/".join(filter(None, named))
    assert f"the hub's record of {whose} names it as theirs" in raised.value.story
    assert f"Run: jhub-safety homes choose FOLDER --user={ERIN}" in raised.value.story
    assert one.get_state()[FOLDER] == ""
    assert one._look is None
    # Whose record it is goes on by it: there is no note for the name that they have now.
    stage.secrets.note = None
    kept = stage.spawner(named[0], named[1], {FOLDER: "archive/twin"}, row=rows[named])
    assert paths(await manifest(kept))["/home/jovyan"] == "archive/twin"


# -- settings


@pytest.mark.parametrize("trait", ["home_sub_path", "earlier_home_sub_paths"])
def test_a_template_is_checked_where_it_is_written(trait):
    value = "{userid}" if trait == "home_sub_path" else ["{userid}"]
    with pytest.raises(TraitError, match=f"SafeKubeSpawner.{trait}"):
        SafetySettings(config=Config({"SafetySettings": {trait: value}}))


# -- an operator's choice


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run ``jhub-safety homes choose`` with a hub of this configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    written: dict[str, dict[str, str]] = {}

    async def write(self, text):
        written[self.name] = dict(text)

    monkeypatch.setattr("jhub_safety.cluster.notes.Note.write", write)

    def run(*arguments, database=None, **settings):
        @asynccontextmanager
        async def connected(_):
            config = Config({"SafeKubeSpawner": {"hub_name": "hub", **settings}})
            cluster = SimpleNamespace(api=None, server="k8s", context="admin")
            claims = SimpleNamespace(namespace="jhub")
            options = Options(None, None, None, database)
            yield Connection(cluster, understand(config, "jhub"), claims, options)

        monkeypatch.setattr("jhub_safety.cli.connection.connected", connected)
        return CliRunner().invoke(cli, ["homes", "choose", *arguments], input="n\n"), written

    return run


@pytest.mark.parametrize("more", [(), ("--new",)])
def test_a_choice_is_what_the_next_start_reads(command, more):
    template = {"home_sub_path": "{username}"}
    done, written = command(OLD, f"--user={ERIN}", "--server=gpu", "--yes", *more, **template)
    assert done.exit_code == 0, done.output
    note = folder_note(None, "jhub", Owner("hub", ERIN), timeout=1).name
    new = "yes" if more else "no"
    assert written == {note: {"folder": OLD, "new": new, "user": ERIN, "server": ""}}


@pytest.mark.parametrize(
    ("server", "others"),
    [
        pytest.param(("bob", ""), ["bob"], id="another user's"),
        pytest.param(("[b]ob", "gpu"), ["[b]ob/gpu"], id="another user's named server"),
        pytest.param((ERIN, "gpu"), [], id="one's own"),
    ],
)
def test_a_choice_tells_whose_record_names_the_folder_already(command, tmp_path, server, others):
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    session = orm.new_session_factory(url)()
    add(session, *server, {FOLDER: OLD})
    add(session, "carol", "", {FOLDER: "another"})
    session.close()
    session.get_bind().dispose()
    arguments = (OLD, f"--user={ERIN}", "--yes")
    done, written = command(*arguments, database=url, home_sub_path="{username}")
    assert done.exit_code == 0, done.output
    assert len(written) == 1
    told = [line for line in done.stderr.splitlines() if "But the hub's record" in line]
    assert len(told) == len(others)
    assert all(f"record of {one} names this folder" in told[0] for one in others)


@pytest.mark.parametrize(
    ("arguments", "template"),
    [
        pytest.param(("x", "--yes"), "", id="homes are no folders here"),
        pytest.param(("../x", "--yes"), "{username}", id="no folder"),
        pytest.param(("x",), "{username}", id="no"),
    ],
)
def test_what_is_not_chosen_is_not_recorded(command, arguments, template):
    done, written = command(*arguments, f"--user={ERIN}", home_sub_path=template)
    assert done.exit_code == 1
    assert written == {}


@pytest.mark.parametrize(
    ("change", "commits"),
    [
        pytest.param(lambda row: None, 0, id="as at the start before"),
        pytest.param(lambda row: setattr(row, "state", {"pvc_name": "other"}), 1, id="another"),
        pytest.param(lambda row: setattr(row, "name", "renamed"), 1, id="not on disk yet"),
    ],
)
async def test_a_record_is_on_disk_before_there_is_a_lab_and_is_written_once(
    stage, db, change, commits
):
    add(db, ERIN, "", {})
    row = db.query(orm.Spawner).one()
    one = stage.spawner(row=row)
    one._save_state()
    change(row)
    seen = []
    event.listen(db, "after_commit", seen.append)
    one._save_state()
    assert len(seen) == commits
    assert row.state == one.get_state()
    assert not db.is_modified(row)


async def test_a_mark_that_is_deleted_as_a_refusal_advised_is_not_remembered(stage):
    """A hub that had a folder in use refused everybody until its restart."""
    one, key = stage.spawner(), ("default", folders.landmark.FOLDERS)
    stage.secrets.marks.add(folders.landmark.FOLDERS)
    HomesMixin._marks[key] = "uid"
    await one._settle_folder()
    assert one._look.had
    refusal = one._no_folder(Decision(Row.EMPTY, None, "no folder at all is there"))
    assert "delete secret" in refusal.story
    stage.secrets.marks.clear()
    await one._settle_folder()
    assert not one._look.had
