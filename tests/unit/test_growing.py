"""Whether a claim grows. One that has grown never shrinks again."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jhub_safety import quantity
from jhub_safety.volumes.growing import Size, compare, conditions, differences
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
