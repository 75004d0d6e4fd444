"""What a hub declares of its extra volumes: accepted, refused with a hint, and who gets what."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import quantity
from jhub_safety.errors import ConfigError
from jhub_safety.volumes.declared import WHERE, ExtraVolume, Override, parse_all

NAME = "data-{owner_slug}-{owner_hash}"
ENTRY = {"name": NAME, "capacity": "10Gi"}


def entry(**keys):
    return ENTRY | keys


def test_the_least_that_can_be_written():
    volume = ExtraVolume.parse(ENTRY)
    assert volume == ExtraVolume(NAME, "10Gi")
    assert (volume.access_modes, volume.mount_path, volume.read_only) == (
        ("ReadWriteOnce",),
        "",
        False,
    )


def test_2i2cs_values_as_they_stand():
    [volume] = parse_all([{"name": "postgres-{username}", "class": "standard", "capacity": "1Gi"}])
    assert volume == ExtraVolume("postgres-{username}", "1Gi", "standard")


def test_everything_that_can_be_written():
    volume = ExtraVolume.parse(
        entry(
            **{"class": "fast"},
            access_modes=["ReadWriteMany"],
            labels={"course": "db101"},
            annotations={"backup": "no"},
            mount_path="/data",
            sub_path="{username}",
            read_only=True,
            overrides={
                "users": {"ada": {"capacity": "50Gi"}},
                "groups": {"staff": {"class": "huge", "capacity": "20Gi"}},
            },
        )
    )
    assert volume == ExtraVolume(
        NAME,
        "10Gi",
        "fast",
        ("ReadWriteMany",),
        {"course": "db101"},
        {"backup": "no"},
        "/data",
        "{username}",
        True,
        {"ada": Override("50Gi")},
        {"staff": Override("20Gi", "huge")},
    )


@pytest.mark.parametrize(
    ("camel", "plain", "value"),
    [
        ("accessModes", "access_modes", ["ReadWriteMany"]),
        ("mountPath", "mount_path", "/data"),
        ("subPath", "sub_path", "x"),
    ],
)
def test_keys_may_be_written_as_kubernetes_does(camel, plain, value):
    assert ExtraVolume.parse(entry(**{camel: value})) == ExtraVolume.parse(entry(**{plain: value}))


@pytest.mark.parametrize("empty", [None, ""], ids=repr)
def test_an_empty_class_is_the_clusters_default(empty):
    """Helm values that are set to nothing arrive as null."""
    volume = ExtraVolume.parse(entry(**{"class": empty}, labels=None, overrides=None))
    assert volume == ExtraVolume(NAME, "10Gi")


@pytest.mark.parametrize(
    ("wrong", "key", "told"),
    [
        pytest.param("data", "", "'data' is no dictionary such as {'name'", id="no dictionary"),
        pytest.param(entry(capcity="1Gi"), "", "Did you mean 'capacity'?", id="misspelt"),
        pytest.param(entry(mountpath="/x"), "", "Did you mean 'mount_path'?", id="mountpath"),
        pytest.param(entry(accesModes=[]), "", "Did you mean 'access_modes'?", id="accesModes"),
        pytest.param(entry(zzz=1), "", "'zzz' is not a key of an entry.", id="unknown"),
        pytest.param({"capacity": "1Gi"}, ".name", "None; wanted: text", id="no name"),
        pytest.param(entry(name=""), ".name", "''; wanted: text", id="empty name"),
        pytest.param(entry(name=["x"]), ".name", "wanted: text", id="name is a list"),
        pytest.param({"name": NAME}, ".capacity", "None; wanted: text", id="no capacity"),
        pytest.param(entry(capacity=10), ".capacity", "10; wanted: text", id="a number"),
        pytest.param(entry(capacity="10GB"), ".capacity", "no quantity", id="no quantity"),
        pytest.param(entry(capacity="10K"), ".capacity", "did you mean Ki?", id="capital K"),
        pytest.param(entry(capacity="1500m"), ".capacity", "not a whole number", id="1500m"),
        pytest.param(entry(capacity="0"), ".capacity", "more than 0", id="nothing"),
        pytest.param(entry(**{"class": 5}), ".class", "5; wanted: text", id="class"),
        pytest.param(entry(access_modes=[]), ".access_modes", "wanted: a list", id="no modes"),
        pytest.param(
            entry(access_modes="ReadWriteOnce"), ".access_modes", "ReadWriteMany", id="mode as text"
        ),
        pytest.param(entry(access_modes=["RWO"]), ".access_modes", "['RWO']", id="short mode"),
        pytest.param(entry(access_modes=[["x"]]), ".access_modes", "a list", id="list of lists"),
        pytest.param(entry(labels=["x"]), ".labels", "wanted: a dictionary", id="labels"),
        pytest.param(entry(labels={"a": 1}), ".labels", "text for text", id="label of a number"),
        pytest.param(entry(annotations={1: "a"}), ".annotations", "text for text", id="key"),
        pytest.param(entry(mount_path="data"), ".mount_path", "an absolute path", id="relative"),
        pytest.param(entry(mount_path="/a/../b"), ".mount_path", "an absolute path", id="dots"),
        pytest.param(entry(mount_path="/a:b"), ".mount_path", "an absolute path", id="colon"),
        pytest.param(entry(sub_path=5), ".sub_path", "5; wanted: text", id="sub_path"),
        pytest.param(entry(read_only="yes"), ".read_only", "true or false", id="read_only"),
        pytest.param(entry(overrides=[1]), ".overrides", "a dictionary", id="overrides"),
        pytest.param(
            entry(overrides={"user": {}}), ".overrides", "users and groups", id="users misspelt"
        ),
        pytest.param(
            entry(overrides={"users": ["ada"]}), ".users", "a dictionary", id="users as a list"
        ),
        pytest.param(
            entry(overrides={"users": {"ada": "50Gi"}}),
            ".overrides.users[ada]",
            "capacity, class, or both",
            id="override as text",
        ),
        pytest.param(
            entry(overrides={"groups": {"staff": {}}}),
            ".overrides.groups[staff]",
            "capacity, class, or both",
            id="empty override",
        ),
        pytest.param(
            entry(overrides={"groups": {"staff": {"capacity": "1Gi", "labels": {}}}}),
            ".overrides.groups[staff]",
            "capacity, class, or both",
            id="override of something else",
        ),
        pytest.param(
            entry(overrides={"users": {"ada": {"capacity": "lots"}}}),
            ".overrides.users[ada].capacity",
            "no quantity",
            id="override with a wrong capacity",
        ),
    ],
)
def test_an_error_says_where_and_what_is_wanted(wrong, key, told):
    with pytest.raises(ConfigError) as caught:
        ExtraVolume.parse(wrong)
    text = str(caught.value)
    assert text.startswith(WHERE)
    assert key in text
    assert told in text


def test_an_error_names_the_entry():
    with pytest.raises(ConfigError, match=re.escape(f"{WHERE}[{NAME}].capacity: ")):
        parse_all([entry(name="x-{username}"), entry(capacity="10GB")])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("postgres-{userid}", "{userid} is a number that every user gets anew when the hub"),
        ("postgres-{username}-{userid}", "and with it an empty volume"),
        ("postgres-{user}", "the field {user} is not known"),
        ("postgres-{username", "expected '}' before end of string"),
        ("postgres-{}", "is not known"),
        ("postgres-{username.name}", "is not known"),
        ("postgres", "the name is the same for every user"),
        ("postgres-{servername}", "the name is the same for every user"),
        ("postgres-{owner_slug}", "the name is the same for every user"),
        ("postgres-{namespace}", "Wanted: one with {owner_hash}, {username} or {user_server}"),
    ],
)
def test_a_name_that_cannot_tell_users_apart_is_refused(name, told):
    with pytest.raises(ConfigError) as caught:
        ExtraVolume.parse(entry(name=name))
    assert str(caught.value).startswith(f"{WHERE}[{name}]")
    assert told in str(caught.value)
    assert "pvc_name_template" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "postgres-{username}",
        "postgres-{escaped_username}",
        "db-{user_server}",
        "db-{safe_user_server}",
        "x-{user_slug}-{user_hash}",
        "{username}-db",
        NAME,
    ],
)
def test_a_name_that_tells_users_apart(name):
    assert ExtraVolume.parse(entry(name=name)).name == name


def test_no_two_entries_have_one_name():
    with pytest.raises(ConfigError, match=r"two entries are called 'db-\{username\}'"):
        parse_all([entry(name="db-{username}"), ENTRY, entry(name="db-{username}")])


@pytest.mark.parametrize("path", ["/data", "/data/", "/data//", "/data/."])
def test_no_two_entries_are_mounted_in_one_place(path):
    """The API server refuses the whole pod: nobody could start."""
    first, second = entry(mount_path="/data"), entry(name="db-{username}", mount_path=path)
    with pytest.raises(ConfigError, match="are both mounted at /data") as caught:
        parse_all([first, ENTRY | {"name": "x-{username}"}, second])
    assert NAME in str(caught.value)
    assert "db-{username}" in str(caught.value)


def test_entries_in_different_places_and_in_none_are_fine():
    entries = [
        entry(mount_path="/data"),
        entry(name="b-{username}", mount_path="/data/b"),
        entry(name="c-{username}"),
        entry(name="d-{username}"),
    ]
    assert len(parse_all(entries)) == 4


# -- who gets what

TEACHING = ExtraVolume.parse(
    entry(
        **{"class": "standard"},
        overrides={
            "users": {
                "ada": {"capacity": "5Gi"},
                "eve": {"class": "fast"},
                "flo": {"capacity": "20480Mi", "class": "own"},
            },
            "groups": {
                "databases": {"capacity": "20Gi"},
                "big-data": {"capacity": "100Gi", "class": "huge"},
                "short": {"capacity": "512Mi"},
                "fast": {"class": "ssd"},
                "also": {"capacity": "20Gi", "class": "hdd"},
            },
        },
    )
)


@pytest.mark.parametrize(
    ("user", "groups", "capacity", "storage_class"),
    [
        pytest.param("bob", [], "10Gi", "standard", id="nothing special"),
        pytest.param("bob", ["other"], "10Gi", "standard", id="a group of no override"),
        pytest.param("bob", ["databases"], "20Gi", "standard", id="a group"),
        pytest.param("bob", ["databases", "big-data"], "100Gi", "huge", id="largest of groups"),
        pytest.param("bob", ["big-data", "databases"], "100Gi", "huge", id="in any order"),
        pytest.param("bob", ["short"], "512Mi", "standard", id="a group may have less"),
        pytest.param("bob", ["fast"], "10Gi", "ssd", id="a class alone"),
        pytest.param("ada", [], "5Gi", "standard", id="by name: less than the entry's own"),
        pytest.param("ada", ["short"], "5Gi", "standard", id="by name, more than the group's"),
        pytest.param("ada", ["big-data"], "100Gi", "huge", id="by name, less than the group's"),
        pytest.param("eve", [], "10Gi", "fast", id="a class by name"),
        pytest.param("eve", ["short"], "10Gi", "fast", id="a class by name has the entry's size"),
        pytest.param("eve", ["big-data"], "100Gi", "huge", id="a class by name and a larger group"),
        pytest.param("flo", ["also"], "20480Mi", "own", id="a tie: the user's own"),
        pytest.param("bob", ["databases", "also"], "20Gi", "hdd", id="a tie: first group by name"),
    ],
)
def test_the_largest_of_all_that_match_with_its_class(user, groups, capacity, storage_class):
    for order in (groups, groups[::-1], groups * 2):
        assert TEACHING.for_user(user, order) == Override(capacity, storage_class)


SIZES = st.sampled_from(["1Gi", "1G", "2Gi", "0.5Ti", "7M"])


@given(
    st.dictionaries(st.sampled_from("abcdef"), SIZES),
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.none() | SIZES,
)
def test_nobody_gets_less_than_by_their_name_or_any_of_their_groups(sizes, groups, own):
    by_name = {} if own is None else {"bob": Override(own)}
    by_group = {group: Override(size) for group, size in sizes.items()}
    volume = ExtraVolume("x-{username}", "3Gi", users=by_name, groups=by_group)
    given_ = volume.for_user("bob", groups)
    theirs = [sizes[group] for group in groups if group in sizes] + [own] * (own is not None)
    largest = max(map(quantity.storage, theirs), default=quantity.storage("3Gi"))
    assert quantity.storage(given_.capacity) == largest
