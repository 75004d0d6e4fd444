"""Who a hub's users are, from claims and labs; and the table that a person completes."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import ConfigError
from jhub_safety.recovery.rebuild import Home, Unclear, from_csv, people, to_csv

HOME = {"component": "singleuser-storage"}
EXTRA = {"component": "extra-pvc"}


def claim(name: str, user: str | None = None, server: str = "", **changes) -> Claim:
    """As KubeSpawner makes it."""
    annotations = dict(changes.pop("annotations", {}))
    if user is not None:
        annotations[marks.KUBESPAWNER_USER] = user
    if server:
        annotations[marks.KUBESPAWNER_SERVER] = server
    labels = changes.pop("labels", HOME)
    return Claim(name, "jhub", f"uid-{name}", annotations=annotations, labels=labels, **changes)


def home(name: str, user: str, server: str = "") -> dict[tuple[str, str], Home]:
    return {(user, server): Home(name, "jhub", user, server)}


@pytest.mark.parametrize(
    "user",
    [
        "ada",
        "erin@school.edu",
        "john.doe",
        "john-doe",
        "a-2eb",
        "zoë",
        "山田",
        "o'hara",
        "a b",
        "😀",
    ],
)
def test_names_are_taken_as_they_were_written(user):
    found = people([claim("claim-x", user)], "jhub")
    assert (found.users, found.homes, found.unclear) == ({user}, home("claim-x", user), ())


def test_users_whose_names_look_alike_stay_apart():
    given = [
        claim("claim-john-2edoe", "john.doe"),
        claim("claim-john-doe", "john-doe"),
        claim("claim-john-2d2edoe", "john-2edoe"),
    ]
    found = people(given, "jhub")
    assert found.users == {"john.doe", "john-doe", "john-2edoe"}
    assert {whose[0]: one.claim for whose, one in found.homes.items()} == {
        "john.doe": "claim-john-2edoe",
        "john-doe": "claim-john-doe",
        "john-2edoe": "claim-john-2d2edoe",
    }


#: Claims; users, homes, and claims that are unclear.
TABLE = [
    pytest.param(
        [claim("claim-ada--gpu", "ada", "gpu")],
        {"ada"},
        home("claim-ada--gpu", "ada", "gpu"),
        (),
        id="a named server's",
    ),
    pytest.param(
        [claim("claim-ada", "ada", annotations={marks.USER: "ada.l"})],
        {"ada.l"},
        home("claim-ada", "ada.l"),
        (),
        id="our annotation beats KubeSpawner's: renamed",
    ),
    pytest.param(
        [claim("claim-ada", "ada"), claim("claim-ada---1", "ada")],
        {"ada"},
        {},
        (),
        id="two homes: the start decides",
    ),
    pytest.param(
        [claim("claim-ada", "ada", labels={**HOME, marks.HUB_LABEL: "other"})],
        set(),
        {},
        (),
        id="another hub's, by label",
    ),
    pytest.param(
        [claim("claim-ada", "ada", annotations={marks.HUB: "other"})],
        set(),
        {},
        (),
        id="another hub's, by annotation",
    ),
    pytest.param(
        [claim("claim-ada", "ada", labels={**HOME, marks.HUB_LABEL: "jhub"})],
        {"ada"},
        home("claim-ada", "ada"),
        (),
        id="this hub's",
    ),
    pytest.param(
        [claim("claim-ada", "ada", annotations={marks.RELEASED: "2026-01-01"})],
        set(),
        {},
        (),
        id="released",
    ),
    pytest.param([claim("claim-ada", "ada", deleting=True)], set(), {}, (), id="being deleted"),
    pytest.param(
        [claim("claim-ada", "ada", phase="Lost")], {"ada"}, {}, (), id="lost: the start says so"
    ),
    pytest.param(
        [claim("data-ada", "ada", labels=EXTRA)], {"ada"}, {}, (), id="an extra volume is no home"
    ),
    pytest.param(
        [claim("claim-data", "ada", annotations={marks.VOLUME: "data"})],
        {"ada"},
        {},
        (),
        id="an extra volume of ours",
    ),
    pytest.param(
        [claim("claim-ada", "ada", annotations={marks.IDENTITY: "oidc-1"})],
        {"ada"},
        {},
        (),
        id="by a stable id: the name may be another person's by now",
    ),
    pytest.param(
        [claim("claim-a-2eb")],
        set(),
        {},
        (Unclear("claim-a-2eb", "it names no user"),),
        id="no annotation: not guessed",
    ),
    pytest.param(
        [claim("claim-a-17", labels={})],
        set(),
        {},
        (Unclear("claim-a-17", "it names no user"),),
        id="of 2017",
    ),
    pytest.param([claim("hub-db-dir", labels={})], set(), {}, (), id="the hub's own volume"),
    *(
        pytest.param(
            [claim("claim-x", user)],
            set(),
            {},
            (Unclear("claim-x", "it names a user whom no hub can have"),),
            id=what,
        )
        for what, user in (
            ("too long for the column", "x" * 256),
            ("a NUL", "a\0b"),
            ("a terminal escape", "a\x1b[2Jb"),
            ("a line break", "a\nb"),
        )
    ),
]


@pytest.mark.parametrize(("claims", "users", "homes", "unclear"), TABLE)
def test_what_a_claim_says_of_its_owner(claims, users, homes, unclear):
    found = people(claims, "jhub")
    assert (found.users, dict(found.homes), found.unclear) == (users, homes, unclear)


def test_users_of_running_labs_count_without_any_claim():
    found = people([], "jhub", labs=[("ada", ""), ("bob", "gpu")])
    assert (found.users, dict(found.homes)) == ({"ada", "bob"}, {})


def test_what_a_person_filled_in_counts_only_where_the_claim_says_nothing():
    given = [claim("claim-a-2eb"), claim("claim-ada", "ada")]
    told = {"claim-a-2eb": ("a.b", ""), "claim-ada": ("mallory", "")}
    found = people(given, "jhub", told=told)
    assert found.users == {"a.b", "ada"}
    assert dict(found.homes) == home("claim-a-2eb", "a.b") | home("claim-ada", "ada")


_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80)


@given(st.dictionaries(_names, st.sampled_from(["", "gpu"]), max_size=20))
def test_everybody_with_a_claim_is_there_and_has_that_claim(owners):
    given = [
        claim(f"claim-{number}", user, server)
        for number, (user, server) in enumerate(owners.items())
    ]
    found = people(given, "jhub")
    assert found.users == set(owners)
    assert {whose: one.claim for whose, one in found.homes.items()} == {
        whose: f"claim-{number}" for number, whose in enumerate(owners.items())
    }


# -- the table

UNCLEAR = (
    Unclear("claim-a-2eb", "it names no user", "10Gi", "2017-09-01T08:00:00+00:00"),
    Unclear("claim-x", "it names no user"),
)


def filled(*rows: str) -> str:
    return "\n".join(["claim,why,size,created,user,server", *rows])


def test_an_empty_table_has_a_line_for_each_and_names_nobody():
    table = to_csv(UNCLEAR)
    assert table.splitlines()[1:] == [
        "claim-a-2eb,it names no user,10Gi,2017-09-01T08:00:00+00:00,,",
        "claim-x,it names no user,,,,",
    ]
    assert from_csv(table) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(filled("c,,,,a.b,"), {"c": ("a.b", "")}, id="a user"),
        pytest.param(filled("c,,,,a.b,gpu"), {"c": ("a.b", "gpu")}, id="and a server"),
        pytest.param(filled('c,,,,"O\'Hara, P.",'), {"c": ("O'Hara, P.", "")}, id="a comma"),
        pytest.param(filled("c,,,,zoë,"), {"c": ("zoë", "")}, id="beyond ASCII"),
        pytest.param(filled('c,,,,"a\nb",'), {"c": ("a\nb", "")}, id="a line break"),
        pytest.param(filled("c,,,,=1+1,"), {"c": ("=1+1", "")}, id="a formula is a name"),
        pytest.param("\ufeff" + filled("c,,,,ada,"), {"c": ("ada", "")}, id="byte order mark"),
        pytest.param(filled("c,,,,ada,").replace("\n", "\r\n"), {"c": ("ada", "")}, id="CRLF"),
        pytest.param(filled(" c ,,,, ada , "), {"c": ("ada", "")}, id="spaces"),
        pytest.param(filled("c,,,,ada"), {"c": ("ada", "")}, id="a column too few"),
        pytest.param(filled("c,,,,ada,,,x"), {"c": ("ada", "")}, id="columns too many"),
        pytest.param("user,claim\nada,c\n", {"c": ("ada", "")}, id="columns in another order"),
        pytest.param(filled("c,,,,,", "c,,,,ada,"), {"c": ("ada", "")}, id="one line left empty"),
    ],
)
def test_what_a_person_wrote_is_read(text, told):
    assert from_csv(text) == told


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("claim;user\nc;ada\n", id="semicolons"),
        pytest.param("name,owner\nc,ada\n", id="other columns"),
        pytest.param(filled("c,,,,ada,", "c,,,,bob,"), id="one claim, two users"),
    ],
)
def test_a_table_that_cannot_be_meant_so_is_an_error(text):
    with pytest.raises(ConfigError):
        from_csv(text)


@given(st.dictionaries(st.from_regex(r"\Aclaim-[a-z0-9-]{1,20}\Z"), _names, max_size=10))
def test_whatever_is_written_into_the_table_comes_back(owners):
    lines = to_csv(Unclear(name, "why") for name in owners)
    rows = list(csv.DictReader(io.StringIO(lines)))
    for row, user in zip(rows, owners.values(), strict=True):
        row["user"] = user
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys() if rows else ["claim", "user"])
    table.writeheader()
    table.writerows(rows)
    wanted = {name: (user.strip(), "") for name, user in owners.items() if user.strip()}
    assert from_csv(text.getvalue()) == wanted


def test_when_a_claim_was_made_is_in_the_table():
    made = claim("claim-a-17", created=datetime(2017, 9, 1, tzinfo=UTC), capacity="1Gi")
    (one,) = people([made], "jhub").unclear
    assert (one.size, one.created) == ("1Gi", "2017-09-01T00:00:00+00:00")
