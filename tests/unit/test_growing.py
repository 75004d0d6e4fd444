"""Whether a claim grows. One that has grown never shrinks again."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jhub_safety import quantity
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.volumes.growing import Size, compare, conditions, differences, refusal
from tests.unit.given import claim

AS_WANTED, GROW, SMALLER, TOO_MUCH, UNREADABLE = Size


@pytest.mark.parametrize(
    ("now", "wanted", "limit", "size"),
    [
        pytest.param("10Gi", "10Gi", 10, AS_WANTED, id="same"),
        pytest.param("1Gi", "1024Mi", 10, AS_WANTED, id="same, written differently"),
        pytest.param("1073741824", "1Gi", 10, AS_WANTED, id="same, in bytes"),
        pytest.param("10Gi", "20Gi", 10, GROW, id="larger"),
        pytest.param("10G", "10Gi", 10, GROW, id="larger by the i alone"),
        pytest.param("10Gi", "10737418241", 10, GROW, id="larger by one byte"),
        pytest.param("10Gi", "5Gi", 10, SMALLER, id="smaller"),
        pytest.param("10Gi", "10G", 10, SMALLER, id="smaller by the i alone"),
        pytest.param("10Gi", "100Gi", 10, GROW, id="tenfold"),
        pytest.param("10Gi", "107374182401", 10, TOO_MUCH, id="tenfold and one byte"),
        pytest.param("10Gi", "1000Gi", 10, TOO_MUCH, id="more than tenfold"),
        pytest.param("10Gi", "1000Gi", 100, GROW, id="the limit was raised"),
        pytest.param("10Gi", "15Gi", 1.5, GROW, id="a limit that is no whole number"),
        pytest.param("10Gi", "16Gi", 1.5, TOO_MUCH, id="above a limit that is no whole number"),
        pytest.param("10Gi", "7Ei", 0, GROW, id="limit 0: none"),
        pytest.param("10Gi", "7Ei", float("inf"), GROW, id="limit without end"),
        pytest.param("10Gi", "1Gi", 0, SMALLER, id="smaller without a limit"),
        pytest.param("", "10Gi", 10, UNREADABLE, id="a claim without a size"),
        pytest.param("a lot", "10Gi", 10, UNREADABLE, id="unreadable"),
        pytest.param("10Gi", "1500m", 0, UNREADABLE, id="wanted is unreadable"),
        pytest.param("10Gi", "", 0, UNREADABLE, id="nothing is wanted"),
        pytest.param("0", "10Gi", 0, UNREADABLE, id="a claim of nothing"),
    ],
)
def test_the_table(now, wanted, limit, size):
    growth = compare(claim("c", capacity=now), wanted, limit=limit)
    assert (growth.size, growth.capacity) == (size, wanted)
    # Nothing is told of a size that is right.
    assert bool(growth.why) is (size is not AS_WANTED)
    if size in (GROW, SMALLER, TOO_MUCH):
        assert f"claim c has {now}, configured is {wanted}" in growth.why


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("5Gi", "cannot shrink, it stays as it is"),
        ("1000Gi", "more than 10 times as much, and that cannot be taken back"),
        ("1000Gi", "raise SafeKubeSpawner.max_growth"),
        ("1500m", "not a whole number of bytes"),
    ],
)
def test_what_is_told(wanted, told):
    assert told in compare(claim("c", capacity="10Gi"), wanted, limit=10).why


sizes = st.builds(
    "{}{}".format,
    st.integers(1, 2**40) | st.integers(1, 2**63 - 1) | st.decimals("0.1", "2000", places=1),
    st.sampled_from(["", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]),
)
limits = st.just(0.0) | st.floats(0, 1e6) | st.integers(1, 1000)


@given(sizes, sizes, limits)
@example("9007199254740993", "90071992547409931", 10.0)
@example("9007199254740993", "90071992547409930", 10.0)
@example("1Ei", "8Ei", 0)
def test_a_claim_grows_only_to_something_larger_and_within_the_limit(now, wanted, limit):
    growth = compare(claim("c", capacity=now), wanted, limit=limit)
    try:
        before, after = quantity.storage(now), quantity.storage(wanted)
    except ValueError:
        assert growth.size is UNREADABLE
        return
    within = not limit or after <= before * Fraction(limit)
    assert (growth.size is GROW) == (after > before and within)
    assert (growth.size is SMALLER) == (after < before)
    assert (growth.size is AS_WANTED) == (after == before)


@given(sizes, limits)
def test_one_that_has_grown_is_as_wanted(wanted, limit):
    assert compare(claim("c", capacity=wanted), wanted, limit=limit).size in (AS_WANTED, UNREADABLE)


# -- what cannot be changed

RWO, RWX = "ReadWriteOnce", "ReadWriteMany"


@pytest.mark.parametrize(
    ("fields", "storage_class", "modes", "told"),
    [
        pytest.param(
            {"storage_class": "fast", "access_modes": (RWO,)}, "fast", (RWO,), [], id="none"
        ),
        pytest.param({"storage_class": "fast"}, None, (RWO,), [], id="no class is configured"),
        pytest.param({}, "fast", (RWO,), [], id="the claim names no class"),
        pytest.param(
            {"storage_class": "slow"},
            "fast",
            (RWO,),
            ["claim c is of storage class slow, configured is fast: that counts for new"],
            id="class",
        ),
        pytest.param(
            {"access_modes": (RWO,)},
            None,
            (RWX, RWO),
            ["claim c has access modes ReadWriteOnce, configured are ReadWriteMany, ReadWriteOnce"],
            id="access modes",
        ),
        pytest.param(
            {"access_modes": (RWO, RWX)}, None, (RWX, RWO), [], id="access modes in another order"
        ),
        pytest.param(
            {"storage_class": "slow", "access_modes": (RWO,)},
            "fast",
            (RWX,),
            ["storage class slow", "access modes ReadWriteOnce"],
            id="both",
        ),
    ],
)
def test_differences_are_told_a_sentence_each(fields, storage_class, modes, told):
    found = differences(claim("c", **fields), storage_class, modes)
    assert len(found) == len(told)
    assert all(part in story for part, story in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("Resizing", "claim c is being enlarged by the storage"),
        ("FileSystemResizePending", "its file system grows when a lab mounts it"),
        ("ControllerResizeError", "could not be enlarged by the storage; it keeps its size"),
        ("NodeResizeError", "its file system could not be enlarged"),
        ("ModifyVolumeError", "could not be changed by the storage"),
    ],
)
def test_conditions_are_told_in_words_with_kubernetes_own_message(kind, told):
    [story] = conditions(claim("c", conditions=((kind, "disk quota"), ("Unknown", "x"))))
    assert told in story
    assert story.endswith("(disk quota)")
    [bare] = conditions(claim("c", conditions=((kind, ""),)))
    assert told in bare
    assert "()" not in bare


def test_of_a_claim_in_order_nothing_is_told():
    assert conditions(claim("c")) == ()


# -- what the API server refuses

# Its own words, observed on Kubernetes 1.34.2, as the client hands them on.
ENLARGING = "enlarging claim data-ada in namespace jhub to 9Gi: "
CREATING = "creating claim data-ada in namespace jhub: "
FORBIDDEN = 'HTTP 403 persistentvolumeclaims "data-ada" is forbidden: '
NO_PERMISSION = (
    'User "system:serviceaccount:jhub:hub" cannot patch resource "persistentvolumeclaims" in API '
    'group "" in the namespace "jhub"'
)
QUOTA = (
    "exceeded quota: storage, requested: requests.storage=8Gi, used: requests.storage=7Gi, "
    "limited: requests.storage=6Gi"
)
QUOTA_OF_NUMBER = (
    "exceeded quota: storage, requested: persistentvolumeclaims=1,requests.storage=9Gi, used: "
    "persistentvolumeclaims=7,requests.storage=7Gi, limited: "
    "persistentvolumeclaims=7,requests.storage=6Gi"
)
FIXED = (
    "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc "
    "must support resize"
)
LIMIT = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 9Gi"
UNBOUND = (
    'HTTP 422 PersistentVolumeClaim "data-ada" is invalid: spec: Forbidden: spec is immutable '
    "after creation except resources.requests and volumeAttributesClassName for bound claims\n"
    '@@ -6,7 +6,7 @@\n  "Resources": {\n   "Limits": null,\n   "Requests": {\n-   "storage": "1Gi"'
)
MODIFIED = (
    'Operation cannot be fulfilled on persistentvolumeclaims "data-ada": the object has been '
    "modified; please apply your changes to the latest version and try again"
)
HOOK = 'HTTP 400 admission webhook "sizes.example.org" denied the request: no'
RBAC = "kubectl -n jhub apply -f examples/helm/rbac.yaml"
DESCRIBE = "kubectl -n jhub describe pvc data-ada"
QUOTAS = "kubectl -n jhub describe resourcequota"


@pytest.mark.parametrize(
    ("error", "why", "command", "passes"),
    [
        pytest.param(
            Doubt(ENLARGING + FORBIDDEN + NO_PERMISSION, status=403),
            "the hub may not change claims",
            RBAC,
            False,
            id="no permission",
        ),
        pytest.param(
            Doubt(ENLARGING + FORBIDDEN + QUOTA, status=403),
            "a quota of the namespace leaves no room",
            QUOTAS,
            False,
            id="a quota",
        ),
        pytest.param(
            Doubt(CREATING + FORBIDDEN + QUOTA_OF_NUMBER, status=403),
            "a quota of the namespace leaves no room",
            QUOTAS,
            False,
            id="a quota, of a new one",
        ),
        pytest.param(
            Doubt(ENLARGING + FORBIDDEN + LIMIT, status=403),
            "a limit of the namespace",
            "kubectl -n jhub describe limitrange",
            False,
            id="a limit",
        ),
        pytest.param(
            Doubt(ENLARGING + FORBIDDEN + FIXED, status=403),
            "its storage class does not let volumes grow",
            "kubectl get storageclass",
            False,
            id="a class that cannot expand",
        ),
        pytest.param(
            Doubt(ENLARGING + UNBOUND, status=422),
            "it has no volume yet",
            DESCRIBE,
            True,
            id="not bound yet",
        ),
        pytest.param(
            Conflict(ENLARGING + MODIFIED),
            "it was changed at the same time, and the next start tries again",
            DESCRIBE,
            True,
            id="a conflict",
        ),
    ],
)
def test_each_refusal_of_the_server_is_told_in_words_with_a_command(error, why, command, passes):
    told = refusal(error, "jhub", "data-ada")
    assert why in told.why
    assert (told.command, told.passes) == (command, passes)
    story = told.story("not enlarged")
    assert story.startswith(f"{told.why}, so it was not enlarged: ")
    # The server's own words are there as well, on one line.
    said = str(error).removeprefix(ENLARGING).removeprefix(CREATING)
    assert story.endswith(" ".join(said.split()))


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        pytest.param(Doubt(ENLARGING + HOOK, status=400, retryable=False), False, id="a hook"),
        pytest.param(Doubt(ENLARGING + "no answer within 10 s"), True, id="no answer"),
        pytest.param(
            Doubt(ENLARGING + "HTTP 503 exceeded quota", status=503), True, id="from in between"
        ),
    ],
)
def test_what_is_not_understood_is_told_verbatim(error, passes):
    told = refusal(error, "jhub", "data-ada")
    assert (told.why, told.said, told.command) == ("", str(error), DESCRIBE)
    assert told.story("not enlarged") == f"not enlarged: {error}"
    assert told.passes is passes
