"""Moving data to another major version: what is planned and said, and that no crash loses any."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.cluster.pods import Pod
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action
from jhub_safety.sidecars import upgrade
from jhub_safety.sidecars.moving import Mover
from jhub_safety.sidecars.server import DatabaseServer, parse_servers
from jhub_safety.sidecars.upgrade import Holder, Lab, Told, Wanted

HUB, NAMESPACE = "hub", "ns"


def server(kind: str = "postgres", **more: Any) -> DatabaseServer:
    return parse_servers([{"kind": kind, **more}])[0]


POSTGRES = server()
WANTED = Wanted(POSTGRES, "postgres:15", "postgres:17")


def claim(name: str = "postgres-ada", user: str | None = "ada", **more: Any) -> Claim:
    annotations = {} if user is None else {marks.USER: user, marks.SERVER: "", marks.HUB: HUB}
    if user is not None:
        annotations[marks.VOLUME] = POSTGRES.claim_template
    annotations |= more.pop("annotations", {})
    made = MappingProxyType(annotations)
    return Claim(name, NAMESPACE, f"uid-of-{name}", annotations=made, **more)


def pod(name: str, *claims: str, phase: str = "Running", **more: Any) -> Pod:
    return Pod(name, f"uid-of-{name}", claims, status={"phase": phase}, **more)


# -- whose data


@pytest.mark.parametrize(
    ("given_claim", "on_record", "found"),
    [
        pytest.param(claim(), {}, [("ada", "")], id="annotated"),
        pytest.param(claim(user=None), {}, [], id="nobody's"),
        pytest.param(claim(user=None), {"postgres-ada": ("ada", "x")}, [("ada", "x")], id="record"),
        pytest.param(claim(annotations={marks.HUB: "other"}), {}, [], id="another hub's"),
        pytest.param(
            claim(annotations={marks.VOLUME: "data-{user_server}"}),
            {"postgres-ada": ("bob", "")},
            [],
            id="another volume, whatever the record says",
        ),
    ],
)
def test_a_claim_counts_by_its_annotations_or_by_the_hubs_records(given_claim, on_record, found):
    holders = upgrade.holders([given_claim], POSTGRES, HUB, on_record)
    assert [(one.user, one.server) for one in holders] == found


# -- the plan


def plan(given_claim: Claim, *pods: Pod, wanted: Wanted = WANTED):
    return upgrade.plan_upgrades(wanted, [Holder("ada", "", given_claim)], pods, NAMESPACE)


@pytest.mark.parametrize(
    ("given_claim", "pods", "code"),
    [
        pytest.param(claim(), [], None, id="free"),
        pytest.param(claim(), [pod("other", "claim-ada")], None, id="another claim is mounted"),
        pytest.param(claim(), [pod("lab", "postgres-ada")], "in-use", id="a lab runs"),
        pytest.param(
            claim(), [pod("lab", "postgres-ada", deleting=True)], "in-use", id="a lab is ending"
        ),
        pytest.param(
            claim(), [pod("lab", "postgres-ada", phase="Unknown")], "in-use", id="node is lost"
        ),
        pytest.param(claim(), [pod("lab", "postgres-ada", phase="Failed")], None, id="lab ended"),
        pytest.param(
            claim(),
            [pod("up", "postgres-ada", labels={"component": upgrade.COMPONENT})],
            None,
            id="an upgrade that was begun before",
        ),
        pytest.param(claim(deleting=True), [], "terminating", id="being deleted"),
        pytest.param(claim(phase="Pending"), [], "not-bound", id="no volume yet"),
        pytest.param(claim(phase="Lost"), [], "not-bound", id="volume lost"),
    ],
)
def test_a_claim_is_moved_or_refused_with_the_reason(given_claim, pods, code):
    made = plan(given_claim, *pods)
    assert [one.code for one in made.refusals] == ([code] if code else [])
    assert [one.name for one in made.actions] == ([] if code else [given_claim.name])


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_a_kind_that_is_not_moved_by_dump_is_refused(kind: str):
    made = plan(claim(), wanted=Wanted(server(kind), "a:1", "a:2"))
    assert [one.code for one in made.refusals] == ["kind"]
    assert not made.actions


# -- the pod


def manifest(**more: Any) -> dict[str, Any]:
    (action,) = plan(claim()).actions
    return upgrade.manifest(WANTED, action, Lab(**more), HUB, 1234, 100)


def test_the_old_version_cannot_write_to_the_claim():
    new, old = manifest()["spec"]["containers"]
    assert (new["image"], old["image"]) == ("postgres:17", "postgres:15")
    mounts = {one["name"]: one for one in old["volumeMounts"]}
    assert mounts["data"]["readOnly"] is True
    assert "readOnly" not in {one["name"]: one for one in new["volumeMounts"]}["data"]


def test_the_pod_is_no_lab_has_no_token_and_may_do_nothing_special():
    made = manifest()
    assert made["metadata"]["labels"]["component"] == upgrade.COMPONENT
    assert made["spec"]["automountServiceAccountToken"] is False
    for container in made["spec"]["containers"]:
        assert container["securityContext"]["runAsUser"] == 1234
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "ports" not in container


def test_it_goes_where_labs_go():
    made = manifest(node_selector={"pool": "labs"}, tolerations=[{"key": "labs"}])
    assert made["spec"]["nodeSelector"] == {"pool": "labs"}
    assert made["spec"]["tolerations"] == [{"key": "labs"}]


# -- what it said


def status(message: str | None, phase: str = "Running", **ended: Any) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}}
    if message is not None:
        state = {"terminated": {"message": message, **ended}}
    return {"phase": phase, "containerStatuses": [{"name": upgrade.NEW, "state": state}]}


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        pytest.param(status(None), None, id="runs"),
        pytest.param({}, None, id="nothing known"),
        pytest.param(
            status("jhub-safety upgraded 15 17 data.15\n"),
            Told("upgraded", ("15", "17", "data.15")),
            id="done",
        ),
        pytest.param(status("jhub-safety busy\n"), Told("busy"), id="busy"),
        pytest.param(status("", reason="OOMKilled"), Told("killed", ("OOMKilled",)), id="killed"),
        pytest.param(
            status("jhub-safety made-up x\n", reason="Error"),
            Told("killed", ("Error",)),
            id="a code that nobody knows",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted"}, Told("killed", ("Evicted",)), id="evicted"
        ),
        pytest.param(
            status("jhub-safety in-the-way \x1b[31mred\n"),
            Told("in-the-way", ("?",)),
            id="an escape for terminals",
        ),
    ],
)
def test_how_it_ended_is_read_from_the_pods_status(seen, told):
    assert upgrade.told(seen) == told


@pytest.mark.parametrize("code", sorted(upgrade.CODES))
def test_each_end_is_a_sentence_that_says_what_became_of_the_data(code: str):
    said = Told(code, ("15", "17", "data.15")).sentence
    assert "{" not in said
    assert any(word in said for word in ("kept", "othing", "No data was changed", "unchanged"))


def test_each_code_of_the_scripts_has_a_sentence():
    scripts = "".join(
        files("jhub_safety.sidecars").joinpath(name).read_text()
        for name in ("upgrade_new.sh", "upgrade_old.sh")
    )
    said = set(re.findall(r"(?:^|[|;)&] |\b)(?:end|give_up) ([a-z-]+)\b", scripts))
    assert said - {"of"} <= upgrade.CODES
    assert said | {"killed", "pull", "late"} >= upgrade.CODES


@given(st.text(max_size=200))
def test_whatever_a_pod_says_becomes_plain_words(message: str):
    told = upgrade.told(status(message))
    assert told is not None
    assert told.sentence.isprintable()


# -- carrying it out


class Cluster:
    """Claims and pods of a namespace; a pod ends at its next look as *ends* says."""

    namespace = NAMESPACE

    def __init__(self, *ends: str) -> None:
        self.ends = list(ends)
        self.claims = {"postgres-ada": claim(), "postgres-bob": claim("postgres-bob", "bob")}
        self.pods: dict[str, Pod] = {}
        self.made: list[dict[str, Any]] = []
        self.labs: list[Pod] = []

    async def read_claim(self, name: str) -> Claim | None:
        return self.claims.get(name)

    async def list(self, selector: str = "") -> tuple[Pod, ...]:
        return (*self.labs, *self.pods.values())

    async def read(self, name: str) -> Pod | None:
        return self.pods.get(name)

    async def create(self, made: dict[str, Any]) -> Pod:
        name = made["metadata"]["name"]
        if name in self.pods:
            raise Conflict("exists")
        message = self.ends.pop(0)
        if message == "doubt":
            raise Doubt("HTTP 500")
        self.made.append(made)
        self.pods[name] = Pod(
            name,
            f"uid-{len(self.made)}",
            annotations=made["metadata"]["annotations"],
            status=status(f"jhub-safety {message}\n", phase="Succeeded"),
        )
        return self.pods[name]

    async def delete(self, gone: Pod) -> None:
        del self.pods[gone.name]

    async def carry_out(self, *users: str) -> dict[str, str]:
        holders = [Holder(one, "", claim(f"postgres-{one}", one)) for one in users]
        made = upgrade.plan_upgrades(WANTED, holders, [], NAMESPACE)
        claims = type("Claims", (), {"read": self.read_claim})()

        async def sleep(_: float) -> None: ...

        mover = Mover(WANTED, claims, self, Lab(), HUB, sleep=sleep)  # type: ignore[arg-type]
        outcomes = await mover.execute(made, Journal(None))
        return {one.action.user: one.result for one in outcomes}


async def test_one_that_fails_stops_no_other_and_leaves_its_pod_for_its_log():
    cluster = Cluster("restore", "upgraded 15 17 data.15")
    ended = await cluster.carry_out("ada", "bob")
    assert ended["ada"].startswith("failed: the new version did not take")
    assert ended["bob"].startswith("done")
    assert list(cluster.pods) == ["jhub-safety-upgrade-uid-of-postgres-ada"]


async def test_an_error_of_the_api_server_stops_no_other():
    ended = await Cluster("doubt", "already 17").carry_out("ada", "bob")
    assert ended["ada"].startswith("failed: HTTP 500")
    assert ended["bob"].startswith("unchanged")


async def test_data_of_another_uid_is_moved_as_that_uid():
    cluster = Cluster("owner 999 998", "upgraded 15 17 data.15")
    assert (await cluster.carry_out("ada"))["ada"].startswith("done")
    (first, second) = cluster.made
    assert first["spec"]["containers"][0]["securityContext"]["runAsUser"] == 1000
    context = second["spec"]["containers"][0]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (999, 998)


async def test_data_of_root_is_not_moved_as_root():
    cluster = Cluster("owner 0 0")
    assert (await cluster.carry_out("ada"))["ada"].startswith("failed")
    assert len(cluster.made) == 1


async def test_a_claim_that_was_made_anew_since_the_plan_is_left_alone():
    cluster = Cluster()
    cluster.claims["postgres-ada"] = Claim("postgres-ada", NAMESPACE, "another")
    assert "not the one that was planned for" in (await cluster.carry_out("ada"))["ada"]
    assert cluster.made == []


async def test_a_lab_that_was_started_since_the_plan_is_left_alone():
    cluster = Cluster()
    cluster.labs = [pod("lab", "postgres-ada")]
    assert "is mounted by lab" in (await cluster.carry_out("ada"))["ada"]
    assert cluster.made == []


async def test_a_pod_that_a_killed_command_left_is_waited_for():
    cluster = Cluster("upgraded 15 17 data.15")
    (action,) = plan(claim()).actions
    made = upgrade.manifest(WANTED, action, Lab(), HUB, 1000, 100)
    left = await cluster.create(made)
    looks = iter([{"phase": "Running"}, left.status])

    async def read(name: str) -> Pod | None:
        seen = cluster.pods.get(name)
        found = next(looks, left.status)
        return seen and Pod(name, seen.uid, annotations=seen.annotations, status=found)

    cluster.read = read  # type: ignore[method-assign]
    assert (await cluster.carry_out("ada"))["ada"].startswith("done")
    assert len(cluster.made) == 1


async def test_another_upgrade_of_the_same_claim_is_left_alone():
    cluster = Cluster()
    (action,) = plan(claim()).actions
    name = upgrade.pod_name(action)
    about = json.dumps({"database": "postgres", "from": "postgres:15", "to": "postgres:18"})
    cluster.pods[name] = Pod(
        name, "u", annotations={upgrade.ANNOTATION: about}, status={"phase": "Running"}
    )
    assert "another upgrade of this claim" in (await cluster.carry_out("ada"))["ada"]
    assert list(cluster.pods) == [name]


# -- the script, killed anywhere

NEW = files("jhub_safety.sidecars").joinpath("upgrade_new.sh").read_text()
KEEPER = files("jhub_safety.sidecars").joinpath("keeper.sh").read_text()
#: Programs that the script runs and that change something, or stand for what takes long.
COUNTED = ("mv", "rm", "sync", "initdb", "pg_dumpall", "sha256sum")
#: Counts each call of a program, and kills all at the one that FAKE_AT names: before or after it.
WRAPPER = r"""
echo {name} >>$FAKE/calls
count=$(grep -cx {name} $FAKE/calls)
[ "$FAKE_AT" != "{name}-$count-before" ] || kill -9 0
{program}
code=$?
[ "$FAKE_AT" != "{name}-$count-after" ] || kill -9 0
exit $code
"""
PROGRAMS = {
    # A shell ignores SIGINT in what it starts in the background; PostgreSQL sets its own handlers.
    "postgres": """
case $1 in --version) echo "postgres (PostgreSQL) 17.5"; exit ;; esac
exec env --default-signal=INT,QUIT sh -c \
    'trap "exit 0" INT QUIT; while :; do /bin/sleep 0.02; done' """,
    "initdb": """
for word; do case $word in --pgdata=*) new=${word#*=} ;; esac; done
mkdir -p "$new/global" "$new/pg_tblspc"
echo 17 >"$new/PG_VERSION"
echo c17 >"$new/global/pg_control"
""",
    "psql": r"""
for word; do
    case $word in
        *quote_ident*) echo 'jovyan|"jovyan"'; exit ;;
        *'NOT datallowconn'*) echo 0; exit ;;
        *datname\ IN*) echo "1|dbname='postgres'"; echo "0|dbname='jovyan'"; exit ;;
        *rolname\ FROM*) echo jovyan; exit ;;
        SELECT*) echo same; exit ;;
    esac
done
cat >>"$JHS_DATA.new-17/rows"
""",
    "pg_dump": "echo rows",
    "pg_dumpall": "echo roles",
    "pg_isready": ":",
    "getent": ":",
    "sleep": "/bin/sleep 0.02",
}


@dataclass
class Volume:
    """A volume with data of version 15, and fakes of all that the script runs."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in ("volume/data/global", "volume/data/pg_tblspc", "fake", "bin"):
            (self.folder / one).mkdir(parents=True)
        (self.data / "PG_VERSION").write_text("15\n")
        (self.data / "global/pg_control").write_text("c15")
        (self.data / "rows").write_text("rows of 15")
        (self.folder / "mounts").write_text(f"x {self.volume} ext4 rw 0 0\n")
        for name in {*COUNTED, *PROGRAMS}:
            real = shutil.which(name)
            program = PROGRAMS.get(name) or f'{real} "$@"'
            if name in COUNTED:
                program = WRAPPER.replace("{program}", f"({program})").replace("{name}", name)
            (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{program}\n")
            (self.folder / "bin" / name).chmod(0o755)

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def data(self) -> Path:
        return self.volume / "data"

    def run(self, at: str = "", script: str = NEW) -> tuple[int, str]:
        """The script's end and its last word; *at*: "mv-1-before", where all is killed."""
        share, message = self.folder / "share", self.folder / "message"
        shutil.rmtree(share, ignore_errors=True)
        share.mkdir()
        (share / "old-ready").touch()
        message.unlink(missing_ok=True)
        (self.folder / "fake/calls").write_text("")
        (self.folder / "script").write_text(script)
        process = subprocess.Popen(
            ["sh", str(self.folder / "script")],
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "FAKE": str(self.folder / "fake"),
                "FAKE_AT": at,
                "JHS_DATA": str(self.data),
                "JHS_USER": "jovyan",
                "JHS_SHARE": str(share),
                "JHS_MESSAGE": str(message),
                "JHS_MOUNTS": str(self.folder / "mounts"),
            },
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "errors").open("wb"),
            start_new_session=True,
        )
        try:
            code = process.wait(20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return code, message.read_text().strip() if message.exists() else ""

    def calls(self, program: str) -> int:
        return (self.folder / "fake/calls").read_text().splitlines().count(program)

    def versions(self) -> dict[str, str]:
        """Version by folder."""
        return {
            one.parent.name: one.read_text().strip()
            for one in sorted(self.volume.glob("*/PG_VERSION"))
        }


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_new_folder_is_put_in_place_and_the_old_one_is_kept(volume: Volume):
    old = digest(volume.data)
    assert volume.run() == (0, "jhub-safety upgraded 15 17 data.15")
    assert volume.versions() == {"data": "17", "data.15": "15"}
    assert digest(volume.volume / "data.15") == old
    assert volume.run() == (0, "jhub-safety already 17")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("program", COUNTED)
def test_killed_at_any_point_the_old_or_the_new_is_in_place_and_a_new_run_completes_it(
    tmp_path: Path, program: str
):
    whole = Volume(tmp_path / "whole")
    whole.run()
    assert whole.calls(program) > 0
    for number in range(1, whole.calls(program) + 1):
        for when in ("before", "after"):
            volume = Volume(tmp_path / f"{number}-{when}")
            old = digest(volume.data)
            code, said = volume.run(f"{program}-{number}-{when}")
            assert (code, said) == (-signal.SIGKILL, "") or "upgraded" in said
            kept = next(
                (volume.volume / one for one in ("data.15", "data") if digest_of_15(volume, one)),
                None,
            )
            assert kept is not None, (number, when, volume.versions())
            assert digest(kept) == old
            if not volume.data.exists():
                # Between the two renames: the new one is whole, and the keeper knows of it.
                assert (
                    (volume.volume / ".jhub-safety-switching").read_text().startswith("17 data.15 ")
                )
                assert volume.versions() == {"data.15": "15", "data.new-17": "17"}

            code, said = volume.run()

            assert code == 0, (number, when, said)
            assert volume.versions() == {"data": "17", "data.15": "15"}, (number, when)
            assert digest(volume.volume / "data.15") == old
            assert not list(volume.volume.glob(".jhub-safety-[us]*")), (number, when)
            shutil.rmtree(volume.folder)


def digest_of_15(volume: Volume, folder: str) -> bool:
    return volume.versions().get(folder) == "15"


def test_data_that_was_used_since_it_was_copied_is_copied_again(volume: Volume):
    volume.run()
    (volume.data).rename(volume.volume / "data.new-17")
    (volume.volume / "data.15").rename(volume.data)
    (volume.volume / ".jhub-safety-switching").write_text("17 data.15 0123\n")
    (volume.data / "rows").write_text("later rows")
    assert volume.run() == (0, "jhub-safety upgraded 15 17 data.15")
    assert (volume.volume / "data.15/rows").read_text() == "later rows"


def occupy(volume: Volume) -> None:
    (volume.volume / "data.new-17").mkdir()


def half_made(volume: Volume) -> None:
    (volume.volume / ".jhub-safety-half-made").touch()


def tablespaces(volume: Volume) -> None:
    (volume.data / "pg_tblspc/16400").symlink_to("/home")


def newer(volume: Volume) -> None:
    (volume.data / "PG_VERSION").write_text("18\n")


def no_version(volume: Volume) -> None:
    (volume.data / "PG_VERSION").unlink()


def no_mount(volume: Volume) -> None:
    (volume.folder / "mounts").write_text("")


def hostile_marker(volume: Volume) -> None:
    (volume.volume / ".jhub-safety-upgrading").write_text("../../x data.15 0\n")


def full(volume: Volume) -> None:
    (volume.folder / "bin/df").write_text("#!/bin/sh\necho\necho x 100 99 1 99% /x\n")
    (volume.folder / "bin/df").chmod(0o755)


def differs(volume: Volume) -> None:
    script = volume.folder / "bin/pg_dump"
    script.write_text('#!/bin/sh\ncase "$*" in *share/new*) echo other;; *) echo rows;; esac\n')


def dump_breaks(volume: Volume) -> None:
    (volume.folder / "bin/pg_dump").write_text("#!/bin/sh\necho rows; exit 1\n")


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (occupy, "in-the-way data.new-17"),
        (half_made, "half-made"),
        (tablespaces, "tablespaces"),
        (newer, "older 18 17"),
        (no_version, "unknown-data"),
        (no_mount, "no-volume"),
        (hostile_marker, "marker"),
        (full, "no-space"),
        (differs, "compare"),
        (dump_breaks, "dump"),
    ],
)
def test_in_trouble_nothing_is_changed(volume: Volume, trouble: Callable[[Volume], None], code):
    trouble(volume)
    before = digest(volume.volume)
    ended, said = volume.run()
    assert ended == 1
    assert said.startswith(f"jhub-safety {code}")
    after = digest(volume.volume)
    after.pop(".jhub-safety-lock", None)
    assert after == before


def test_a_volume_that_a_server_or_another_upgrade_has_locked_is_left_alone(volume: Volume):
    lock = volume.volume / ".jhub-safety-lock"
    lock.touch()
    (volume.volume / ".jhub-safety-upgrading").write_text("17 data.15 0123\n")
    (volume.volume / "data.new-17").mkdir()
    (volume.volume / "data.new-17/PG_VERSION").write_text("17\n")
    before = digest(volume.volume)
    command = ["flock", str(lock), "sh", "-c", "echo locked; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            assert volume.run() == (1, "jhub-safety busy")
        finally:
            os.killpg(holder.pid, signal.SIGKILL)
    assert digest(volume.volume) == before


def test_a_link_in_place_of_the_data_is_not_followed(volume: Volume):
    volume.data.rename(volume.folder / "elsewhere")
    volume.data.symlink_to(volume.folder / "elsewhere")
    before = digest(volume.folder / "elsewhere")
    assert volume.run() == (1, "jhub-safety unknown-data")
    assert digest(volume.folder / "elsewhere") == before


@pytest.mark.parametrize("empty", [True, False], ids=["an empty folder", "no folder"])
def test_without_data_there_is_nothing_to_do(volume: Volume, empty: bool):
    shutil.rmtree(volume.data)
    if empty:
        volume.data.mkdir()
    assert volume.run() == (0, "jhub-safety nothing")


def test_an_older_folder_of_the_same_name_is_never_replaced(volume: Volume):
    (volume.volume / "data.15").mkdir()
    (volume.volume / "data.15/precious").write_text("x")
    assert volume.run() == (0, "jhub-safety upgraded 15 17 data.15-2")
    assert (volume.volume / "data.15/precious").read_text() == "x"


def test_actions_are_recorded_with_whose_they_are():
    (action,) = plan(claim()).actions
    assert isinstance(action, Action)
    record = action.record()
    assert (record["kind"], record["user"]) == ("upgrade-database", "ada")
