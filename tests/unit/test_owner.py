"""Owner: names that are valid, equal for equals and different for all others, for ever."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jhub_safety import owner as marks
from jhub_safety.owner import Owner, find_identity, label_value
from tests.unit.given import AWKWARD, HUB, any_text, servers, users

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "owner-names.json").read_text(encoding="ascii")
)

DNS_1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

identities = st.one_of(st.none(), any_text)
owners = st.builds(Owner, st.just(HUB), users, servers, identities)


def who(owner: Owner) -> tuple[str, str, str]:
    """What makes an owner: a stable id where there is one, else the user name; and the server."""
    kind, key = ("name", owner.user) if owner.identity is None else ("id", owner.identity)
    return kind, key, owner.server


@given(owners)
def test_claim_name_is_a_dns_label_of_at_most_63_characters(owner):
    assert DNS_1123_LABEL.fullmatch(owner.claim_name)
    assert len(owner.claim_name) <= 63


@pytest.mark.parametrize("user", AWKWARD, ids=lambda user: ascii(user[:20]))
def test_awkward_names_together_still_fit(user):
    for server in ("", *AWKWARD):
        name = Owner(HUB, user, server).claim_name
        assert DNS_1123_LABEL.fullmatch(name), server
        assert len(name) <= 63, server


@given(owners, st.text())
def test_same_owner_has_the_same_name_on_every_hub(owner, other_hub):
    again = Owner(other_hub, owner.user, owner.server, owner.identity)
    assert again.claim_name == owner.claim_name


@given(owners, owners)
@example(Owner(HUB, "ab", "c"), Owner(HUB, "a", "bc"))
@example(Owner(HUB, "alice", "gpu"), Owner(HUB, "alicegpu"))
@example(Owner(HUB, "john.doe"), Owner(HUB, "john-2edoe"))
@example(Owner(HUB, "Alice"), Owner(HUB, "alice"))
@example(Owner(HUB, "\U0001f98a"), Owner(HUB, "\ud83e\udd8a"))
@example(Owner(HUB, "u", "", "alice"), Owner(HUB, "alice"))
@example(Owner(HUB, "name\0alice"), Owner(HUB, "name", "\0alice"))
def test_different_owners_have_different_names(one, two):
    """The whole hash differs, not only the readable part: two users with one slug are two."""
    assume(who(one) != who(two))
    assert one.hash != two.hash
    assert one.claim_name != two.claim_name


@given(users, servers, st.integers(0, 40))
def test_moving_characters_between_user_and_server_changes_the_name(user, server, cut):
    joined = user + server
    cut = min(cut, len(joined))
    moved = Owner(HUB, joined[:cut], joined[cut:])
    assume((moved.user, moved.server) != (user, server))
    assert moved.hash != Owner(HUB, user, server).hash


@given(users, users, any_text, servers)
def test_a_renamed_account_keeps_its_name_by_stable_id(old, new, identity, server):
    before, after = (Owner(HUB, user, server, identity) for user in (old, new))
    assert before.claim_name == after.claim_name
    assert before.labels() == after.labels()
    assert before.identity_digest == after.identity_digest


@given(any_text, users, servers)
def test_a_user_named_like_somebodys_id_is_somebody_else(identity, user, server):
    assert Owner(HUB, user, server, identity).hash != Owner(HUB, identity, server).hash


@given(owners, owners, st.integers(1, 5), st.integers(0, 5))
def test_a_next_name_is_nobody_elses(one, two, spare, other):
    """Made when the first one's claim went with a rename."""
    assume((who(one), spare) != (who(two), other))
    name = replace(one, spare=spare).claim_name
    assert DNS_1123_LABEL.fullmatch(name)
    assert len(name) <= 63
    assert name != replace(two, spare=other).claim_name


@given(any_text)
def test_the_id_itself_is_neither_in_the_name_nor_on_the_claim(identity):
    """It may be personal data."""
    owner = Owner(HUB, "alice", "", identity)
    assert owner.claim_name == f"claim-id-{owner.hash}"
    written = owner.annotations("jhub-safety")
    assert written[marks.IDENTITY] == owner.identity_digest
    assert re.fullmatch(r"[a-z2-7]{26}", owner.identity_digest)
    assert marks.IDENTITY not in Owner(HUB, "alice").annotations("jhub-safety")


@given(owners)
def test_hash_holds_80_bits(owner):
    assert re.fullmatch(r"[a-z2-7]{16}", owner.hash)
    assert owner.claim_name == f"claim-{owner.slug}-{owner.hash}"


@given(owners)
def test_shared_home_is_that_of_the_default_server(owner):
    shared = Owner(owner.hub, owner.user, "", owner.identity)
    assert owner.of_user() == shared
    assert owner.of_user().claim_name == shared.claim_name


@given(any_text)
def test_labels_can_be_written_on_a_claim(hub):
    for value in Owner(hub, "alice").labels().values():
        assert LABEL_VALUE.fullmatch(value)
        assert 0 < len(value) <= 63


@given(any_text, any_text)
@example("Hub", "hub")
@example("a b", "a-b")
@example("x" * 64, "x" * 65)
def test_two_hubs_never_share_a_label(one, two):
    assume(one != two)
    assert label_value(one) != label_value(two)


@pytest.mark.parametrize("text", ["jupyter", "a", "Prod-1.eu_west", "x" * 63])
def test_a_valid_label_value_stays_as_it_is(text):
    assert label_value(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", ".a", "a b", "x" * 64, "ü", "a\n"], ids=ascii)
def test_an_invalid_label_value_is_replaced(text):
    assert LABEL_VALUE.fullmatch(label_value(text))
    assert label_value(text) != text


@pytest.mark.parametrize(
    "entry", GOLDEN, ids=lambda e: ascii(f"{e['user'][:20]}/{e['server'][:8]}/{e['identity']}")
)
def test_names_never_change(entry):
    """These names are on disk, in hubs that run. Nothing in the file can ever be changed.

    A failure here means that users of the next release would get empty homes. The code is
    wrong then, not the file. New owners may be added: ``python -m tools.golden.owners``.
    """
    owner = Owner(entry["hub"], entry["user"], entry["server"], entry["identity"])
    assert {
        "claim": owner.claim_name,
        "hash": owner.hash,
        "labels": owner.labels(),
        "identity_digest": owner.identity_digest,
        "spares": [replace(owner, spare=n).claim_name for n in (1, 2)],
    } == {key: entry[key] for key in ("claim", "hash", "labels", "identity_digest", "spares")}


def test_golden_file_covers_what_it_should():
    assert len(GOLDEN) >= 80
    for part in ("server", "identity"):
        assert {bool(entry[part]) for entry in GOLDEN} == {True, False}
    claims = {}
    for entry in GOLDEN:
        key = who(Owner(entry["hub"], entry["user"], entry["server"], entry["identity"]))
        claims.setdefault(entry["claim"], set()).add(key)
    assert all(len(keys) == 1 for keys in claims.values())


@pytest.mark.parametrize(
    ("auth_state", "key", "found"),
    [
        pytest.param({"sub": "abc"}, "sub", "abc", id="at the top"),
        pytest.param({"oauth_user": {"sub": "abc"}}, "sub", "abc", id="one level below"),
        pytest.param({"oauth_user": {"sub": "abc"}}, "oauth_user.sub", "abc", id="by path"),
        pytest.param({"github_user": {"id": 12345}}, "id", "12345", id="a number"),
        pytest.param({"sub": "a", "user": {"sub": "a"}}, "sub", "a", id="twice the same"),
        pytest.param({"sub": "a", "user": {"sub": ""}}, "sub", "a", id="an empty one beside it"),
    ],
)
def test_identity_is_found(auth_state, key, found):
    assert find_identity(auth_state, key) == found


@pytest.mark.parametrize(
    ("auth_state", "key"),
    [
        pytest.param(None, "sub", id="no auth_state"),
        pytest.param({}, "sub", id="empty auth_state"),
        pytest.param({"sub": None}, "sub", id="null"),
        pytest.param({"sub": ""}, "sub", id="empty text"),
        pytest.param({"sub": True}, "sub", id="a boolean"),
        pytest.param({"sub": ["a"]}, "sub", id="a list"),
        pytest.param({"a": {"sub": "1"}, "b": {"sub": "2"}}, "sub", id="two values"),
        pytest.param({"sub": "1", "b": {"sub": "2"}}, "sub", id="two values, one on top"),
        pytest.param({"a": {"b": {"sub": "1"}}}, "sub", id="too deep"),
        pytest.param({"sub": "1"}, "user.sub", id="path to nowhere"),
        pytest.param({"user": "sub"}, "user.sub", id="path through text"),
    ],
)
def test_identity_that_is_missing_or_ambiguous_is_never_guessed(auth_state, key):
    with pytest.raises(LookupError):
        find_identity(auth_state, key)
