"""Generations of names: what earlier KubeSpawner releases called a claim, and whose it can be."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import assume, given

from jhub_safety.errors import ConfigError
from jhub_safety.owner import Owner
from jhub_safety.volumes.names import (
    BUILT_IN,
    OWN,
    Generation,
    Place,
    candidates,
    other_owner,
    valid_name,
)
from jhub_safety.volumes.slugs import STYLES, Style, escape, unescape
from tests.unit import golden
from tests.unit.given import ALICE, BOB, GPU, HUB, any_text, servers, users

VARIANTS = list(golden.variants())
VARIANT_IDS = ["/".join(variant) for variant in VARIANTS]
SOMEBODY = Owner(HUB, "somebody")


def is_escaped_differently(generation: Generation, owner: Owner) -> bool:
    """escapism writes a tab as ``-9``, we as ``-09``.

    One hex digit cannot be told from what follows it, and no login provider hands out a name
    with a control character: escapism's form is knowingly not reproduced.
    """
    escapes = generation.style not in {"safe", "2017"} and "legacy" not in generation.template
    return escapes and any(ord(char) < 0x10 for char in owner.user)


def is_lower_cased(generation: Generation, owner: Owner) -> bool:
    """2017 lower-cased names, as JupyterHub does before KubeSpawner sees them.

    They are read back as the lower-case user. An authenticator that keeps 'Alice' and 'alice'
    apart would have given both of them one claim anyway.
    """
    lossy = generation.style == "2017" or "legacy" in generation.template
    return lossy and owner.user != owner.user.lower()


def reads(generation: Generation, name: str, owner: Owner) -> bool:
    """True when *owner* is among those for whom *generation* may have made *name*."""
    return any(
        guess.many or (guess.user == owner.user and guess.server in (None, owner.server))
        for guess in generation.read(name, owner)
    )


def test_every_variant_that_was_run_has_its_generation():
    assert set(VARIANTS) == set(golden.COVERED)


def test_every_built_in_generation_is_held_by_a_release():
    assert set(BUILT_IN.values()) <= set(golden.COVERED.values())


@pytest.mark.parametrize(("release", "variant"), VARIANTS, ids=VARIANT_IDS)
def test_renders_what_the_release_named(release, variant):
    """Names that no API server takes are left out: nobody's home is called that."""
    generation = golden.COVERED[release, variant]
    checked = 0
    for vector in golden.vectors(release, variant):
        if not valid_name(vector.name) or is_escaped_differently(generation, vector.owner):
            continue
        rendered = generation.render(vector.owner, userid=vector.userid)
        assert rendered == vector.name, ascii(vector)
        checked += 1
    assert checked >= 65


@pytest.mark.parametrize(("release", "variant"), VARIANTS, ids=VARIANT_IDS)
def test_reads_back_whose_name_it_was(release, variant):
    """Else a claim that can be two people's would pass for one's."""
    generation = golden.COVERED[release, variant]
    checked = 0
    for vector in golden.vectors(release, variant):
        if not valid_name(vector.name) or is_escaped_differently(generation, vector.owner):
            continue
        if is_lower_cased(generation, vector.owner):
            continue
        assert reads(generation, vector.name, vector.owner), ascii(vector)
        checked += 1
    assert checked >= 65


@pytest.mark.parametrize(("release", "variant"), VARIANTS, ids=VARIANT_IDS)
def test_pattern_matches_the_name_whatever_the_user_id_was(release, variant):
    generation = golden.COVERED[release, variant]
    for vector in golden.vectors(release, variant):
        if valid_name(vector.name) and not is_escaped_differently(generation, vector.owner):
            assert generation.pattern(vector.owner).fullmatch(vector.name), ascii(vector)


@pytest.mark.parametrize(("release", "variant"), VARIANTS, ids=VARIANT_IDS)
def test_a_golden_claim_is_among_its_owners_candidates(release, variant):
    """For named servers only where the template says which server."""
    generation = golden.COVERED[release, variant]
    for vector in golden.vectors(release, variant):
        if not valid_name(vector.name) or is_escaped_differently(generation, vector.owner):
            continue
        found = candidates(vector.owner, [generation], [vector.name, "claim-of-another"])
        wanted = generation.per_server or not vector.owner.server
        assert [named.name for named in found] == [vector.name] * wanted, ascii(vector)


#: In collisions.json and yet proven for one of the two; see is_lower_cased and
#: is_escaped_differently for why that is so.
KNOWN_GAPS = {
    *((f"claim-alice-{userid}", "alice", "Alice") for userid in (1, 2, 17, 1042)),
    ("claim-caf-c3-a9-1", "café", "caf\f3\n9"),
}


@pytest.mark.parametrize(
    "pair",
    golden.collisions(),
    ids=lambda p: ascii("{name}: {a[user]}/{a[server]} and {b[user]}/{b[server]}".format(**p)),
)
def test_a_name_that_two_owners_had_is_never_proven(pair):
    """With the generations declared under which the two met, neither gets the claim unasked."""
    generations = golden.made_by(pair["a"]) | golden.made_by(pair["b"])
    for mine, theirs in (("a", "b"), ("b", "a")):
        owner = Owner(HUB, pair[mine]["user"], pair[mine]["server"])
        proven = other_owner(pair["name"], owner, generations) is None
        gap = (pair["name"], pair[mine]["user"], pair[theirs]["user"])
        assert proven is (gap in KNOWN_GAPS), ascii(owner)


@pytest.mark.parametrize(
    ("name", "declared", "one", "two"),
    [
        pytest.param(
            "claim-john-2edoe",
            ("kubespawner-6", "kubespawner-7"),
            Owner(HUB, "john.doe"),
            Owner(HUB, "john-2edoe"),
            id="KubeSpawner 6 john.doe and KubeSpawner 7 john-2edoe",
        ),
        pytest.param(
            "claim-alicegpu",
            ("z2jh-3",),
            Owner(HUB, "alice", "gpu"),
            Owner(HUB, "alicegpu"),
            id="z2jh 1 to 3 alice/gpu and alicegpu",
        ),
    ],
)
def test_pairs_of_the_issue_are_never_proven(name, declared, one, two):
    generations = [BUILT_IN[key] for key in declared]
    assert [found.name for found in candidates(one, generations, [name])] == [name]
    assert [found.name for found in candidates(two, generations, [name])] == [name]
    assert other_owner(name, one, generations) is not None
    assert other_owner(name, two, generations) is not None


@pytest.mark.parametrize(
    ("name", "owner", "declared"),
    [
        pytest.param("claim-alice", ALICE, ["kubespawner-7"], id="7, plain"),
        pytest.param("claim-alice--gpu", GPU, ["kubespawner-7"], id="7, named server"),
        pytest.param("claim-alice--gpu", GPU, ["kubespawner-6"], id="6, named server"),
        pytest.param("claim-john-2edoe", Owner(HUB, "john.doe"), ["kubespawner-6"], id="6"),
        pytest.param("claim-alice", ALICE, ["kubespawner-6", "kubespawner-7"], id="6 and 7"),
        pytest.param("claim-john-2edoe", Owner(HUB, "john.doe"), ["no-servers"], id="no servers"),
        pytest.param("claim-alice-7", ALICE, ["2017"], id="2017 without unsafe characters"),
        pytest.param("claim-alice-gpu", GPU, ["kubespawner-0.11"], id="0.11, named server"),
        pytest.param(OWN.render(GPU), GPU, [], id="ours"),
    ],
)
def test_a_name_that_only_one_can_have_had_is_proven(name, owner, declared):
    generations = [OWN, *(BUILT_IN[key] for key in declared)]
    assert [found.name for found in candidates(owner, generations, [name])] == [name]
    assert other_owner(name, owner, generations) is None


@pytest.mark.parametrize(
    ("name", "owner", "declared", "who"),
    [
        ("claim-alice--gpu", BOB, ["kubespawner-6"], "alice/gpu under kubespawner-6"),
        ("claim-john-doe-7", Owner(HUB, "john.doe"), ["2017"], "several users under 2017"),
        ("claim-alice", BOB, ["kubespawner-7"], "alice under kubespawner-7"),
        ("claim-a---0123abcd", BOB, ["kubespawner-7"], "several users under kubespawner-7"),
    ],
    ids=["named server", "2017", "another", "hashed"],
)
def test_the_other_owner_is_named_in_words(name, owner, declared, who):
    generations = [BUILT_IN[key] for key in declared]
    assert other_owner(name, owner, generations) == who


TOKENS = ("a", "b", "-", "2d", "-2d")


def _words(most: int) -> set[str]:
    return {"".join(parts) for n in range(1, most + 1) for parts in product(TOKENS, repeat=n)}


def test_no_name_that_two_short_owners_share_is_proven_for_either():
    """Exhaustive: every user and server of up to three and two of the characters that collide.

    For each pair of generations as all that the hub ever ran.
    """
    everybody = [
        Owner(HUB, user, server) for user in _words(3) for server in ("", *_words(1), "b-", "-b")
    ]
    names = {
        generation: {
            owner: name
            for owner in everybody
            if (name := generation.render(owner, userid="7")) and valid_name(name)
        }
        for generation in BUILT_IN.values()
    }
    shared = 0
    for pair in combinations(BUILT_IN.values(), 2):
        owners_of: dict[str, set[Owner]] = {}
        for generation in pair:
            for owner, name in names[generation].items():
                whose = owner if generation.per_server else owner.of_user()
                owners_of.setdefault(name, set()).add(whose)
        for name, owners in owners_of.items():
            if len(owners) < 2:
                continue
            shared += 1
            for owner in owners:
                assert other_owner(name, owner, pair) is not None, (name, owner, pair)
    assert shared > 1000


@pytest.mark.parametrize("generation", [OWN, *BUILT_IN.values()], ids=lambda g: g.key)
@given(user=users, server=servers)
def test_what_a_generation_renders_it_reads_back(generation, user, server):
    owner = Owner(HUB, user, server)
    name = generation.render(owner, userid="7")
    assume(valid_name(name) and not is_lower_cased(generation, owner))
    # Stripped dashes: 0.7 wrote a server called "-" as it is.
    assume(not (generation.style == "0.7" and server.endswith("-")))
    assert reads(generation, name, owner)
    if generation.per_server or not server:
        assert candidates(owner, [generation], [name])[0].generations == (generation.key,)


@given(any_text)
def test_escaping_is_undone_exactly(text):
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    "text", ["-", "-2", "-zz", "-2E", "a-", "-61", "-ff", "-c3", "A", "a.b", ""], ids=repr
)
def test_what_nobody_escaped_is_nobodys(text):
    """``-61`` is an "a", which is never escaped; ``-ff`` is no text."""
    assert unescape(text) is None


@pytest.mark.parametrize(
    ("template", "per_server"),
    [
        ("claim-{username}", False),
        ("claim-{username}-{userid}", False),
        ("{hubnamespace}-{user_slug}-{user_hash}", False),
        ("claim-{username}{servername}", True),
        ("claim-{user_server}", True),
        ("claim-{safe_user_server}", True),
        ("claim-{escaped_servername}-{username}", True),
        ("claim-{unescaped_servername}-{username}", True),
        (OWN.template, True),
    ],
)
def test_a_template_is_per_server_when_it_has_a_server_field(template, per_server):
    assert Generation("x", template, "safe").per_server is per_server


@pytest.mark.parametrize("template", ["claim-{username}", "claim-{username}-{userid}"])
def test_a_shared_home_is_no_named_servers(template):
    generation = Generation("shared", template, "safe")
    names = ["claim-alice", "claim-alice-7"]
    assert candidates(GPU, [generation], names) == ()
    assert [found.name for found in candidates(ALICE, [generation], names)]


def test_candidates_name_every_generation_once_and_in_order():
    found = candidates(ALICE, BUILT_IN.values(), ["claim-alice", "claim-alice-7", "claim-bob"])
    assert [named.name for named in found] == ["claim-alice", "claim-alice-7"]
    every = {key for key in BUILT_IN if key != "2017"}
    assert set(found[0].generations) == every
    assert found[1].generations == ("2017",)


def test_a_user_id_is_digits_and_nothing_else():
    names = ["claim-alice-7", "claim-alice-x7", "claim-alice-", "claim-alice", "claim-alice-7-8"]
    found = candidates(ALICE, [BUILT_IN["2017"]], names)
    assert [named.name for named in found] == ["claim-alice-7"]
    assert BUILT_IN["2017"].render(ALICE) is None


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place("alice-ns", "hub-ns"), "claim-hub-ns-alice-ns-alice"),
        (Place("default", "default"), "claim-user-default-alice"),
    ],
    ids=["user namespaces", "default"],
)
def test_namespaces_in_a_template_are_the_hubs_and_the_users(place, name):
    """KubeSpawner's {hubnamespace} is the hub's own, and "user" in the default namespace."""
    generation = Generation("x", "claim-{hubnamespace}-{namespace}-{username}", "safe")
    assert generation.render(ALICE, place=place) == name
    assert other_owner(name, ALICE, [generation], place=place) is None
    assert other_owner(name, SOMEBODY, [generation], place=place) == "alice under x"
    assert not list(generation.read(name, ALICE, place=Place("other", "other")))


@pytest.mark.parametrize(
    "template",
    ["{user}", "claim-{}", "claim-{0}", "claim-{username.x}", "{safe_userid}", "{", "}", "a{b"],
)
def test_a_template_that_cannot_be_used_is_a_config_error(template):
    with pytest.raises(ConfigError) as error:
        Generation("x", template, "safe")
    assert repr(template) in str(error.value)


@pytest.mark.parametrize("template", [5, None, ["claim-{username}"]])
def test_a_template_that_is_no_text_is_a_config_error(template):
    with pytest.raises(ConfigError, match="pvc_name_template"):
        Generation("x", template, "safe")


@pytest.mark.parametrize(
    ("template", "user", "server", "name"),
    [
        ("claim-{username}--{servername}", "alice", "", "claim-alice"),
        ("claim-{username}-{servername}-", "alice", "", "claim-alice--"),
        ("claim-{username}-{servername}-x", "alice", "", "claim-alice--x"),
    ],
)
def test_dashes_of_an_empty_server_name_go_unless_the_template_ends_with_one(
    template, user, server, name
):
    assert Generation("x", template, "escape").render(Owner(HUB, user, server)) == name


@pytest.mark.parametrize("name", ["a", "a.b", "a-b", "1", "a" * 253])
def test_valid_names(name):
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", ".a", "a.", "a..b", "a.-b", "A", "a_b", "a b", "a\n", "a" * 254]
)
def test_invalid_names(name):
    assert not valid_name(name)
    assert not list(BUILT_IN["z2jh-3"].read(name, ALICE))


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize(
    "name",
    [
        "claim-" + "a" * 247,
        "claim-" + "-2d" * 82,
        "claim-" + "-c3-a9" * 41,
        "claim-" + "a-" * 123 + "a",
        "claim-" + "-2d" * 81 + "-2",
    ],
    ids=["letters", "dashes", "two bytes", "no escapes", "broken at the end"],
)
def test_the_longest_name_is_read_with_few_steps(style, name, monkeypatch):
    """Two fields side by side may be cut anywhere; a spawn must not wait for a search.

    Counted, not timed: at most each cut of the name, once for each number of stripped dashes.
    """
    steps = 0
    read = Style.read

    def counted(*args):
        nonlocal steps
        steps += 1
        return read(*args)

    monkeypatch.setattr(Style, "read", counted)
    generation = Generation("x", "claim-{username}{servername}", style)
    guesses = sum(1 for _ in generation.read(name, ALICE))
    assert guesses <= 3 * len(name)
    assert steps <= 3 * len(name) * (len(name) + 1) / 2
