"""Extra volumes and the hub's records: renames, losses, and what was given up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from jupyterhub import orm
from tornado.web import HTTPError

from jhub_safety import owner as marks
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb import records
from jhub_safety.hubdb.records import CLAIMS_MADE
from jhub_safety.owner import Owner
from jhub_safety.refused import SpawnRefused
from tests.unit.given import HUB, claim
from tests.unit.volume_hub import HASHED, HOME, PER_SERVER, SHARED, VolumeHub, install

ADA, CLEO, CLEOPATRA = (Owner(HUB, name) for name in ("ada", "cleo", "cleopatra"))
FORBIDDEN = Doubt("HTTP 403", status=403, retryable=False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    db = orm.new_session_factory("sqlite:///:memory:")()
    yield install(monkeypatch, VolumeHub(tmp_path, db))
    db.close()
    db.get_bind().dispose()


async def refused(hub: VolumeHub, user: str, server: str = "") -> SpawnRefused:
    """A start that is refused and changes nothing."""
    before = dict(hub.cluster.stored)
    with pytest.raises(SpawnRefused) as caught:
        await hub.start(user, server)
    hub.save()
    assert hub.cluster.stored == before
    return caught.value


# -- a user who is renamed, and whoever gets the old name


@pytest.mark.parametrize("may_patch", [True, False], ids=["PATCH", "no PATCH"])
@pytest.mark.parametrize("homes", ["off", "observe"])
@pytest.mark.parametrize("entry", [SHARED, PER_SERVER, HASHED], ids=lambda one: one["name"])
async def test_whoever_gets_a_former_name_gets_none_of_the_volumes(hub, entry, homes, may_patch):
    """Before the renamed user has started again; on a hub that leaves homes alone as well."""
    hub.settings = {"extra_pvcs": [entry], "homes": homes}
    await hub.start("cleo")
    (name,) = hub.cluster.stored
    if may_patch:
        await hub.rename_user("cleo", "cleopatra")
        said = f"claim {name} is cleopatra of hub {HUB}'s"
    else:
        hub.cluster.faults["annotate"] = [FORBIDDEN] * 3
        with pytest.raises(Doubt):
            await hub.rename_user("cleo", "cleopatra")
        said = f"claim {name} looks like theirs, but the hub's record of cleopatra names it"
    error = await refused(hub, "cleo")
    assert (error.code, error.retryable) == ("taken", False)
    assert said in error.story
    assert "Run: jhub-safety claims explain cleo" in error.story
    # And it is cleopatra's as before.
    await hub.start("cleopatra")
    assert hub.on_record("cleopatra") == {entry["name"]: name}
    assert hub.cluster.stored.keys() == {name}
    assert (await refused(hub, "cleo")).code == "taken"


async def test_a_claim_of_a_renamed_user_carries_the_new_name_at_once(hub):
    await hub.start("cleo")
    await hub.rename_user("cleo", "cleopatra")
    now = hub.cluster.stored["postgres-cleo"]
    assert now.annotations.items() >= CLEOPATRA.annotations("extra").items()
    assert now.annotations[marks.VOLUME] == SHARED["name"]
    assert now.labels.items() >= CLEOPATRA.labels().items()
    assert now.labels["component"] == "extra-pvc"


async def test_it_does_after_a_second_rename_too_where_the_first_could_not_be_written(hub):
    await hub.start("cleo")
    hub.cluster.faults["annotate"] = [FORBIDDEN]
    with pytest.raises(Doubt, match="403"):
        await hub.rename_user("cleo", "cleopatra")
    assert hub.former("cleopatra") == ["cleo"]
    await hub.rename_user("cleopatra", "queen")
    assert hub.cluster.stored["postgres-cleo"].annotations[marks.USER] == "queen"


async def test_one_that_cannot_be_handed_over_keeps_no_other_from_it_and_is_tried_again(hub):
    hub.settings = {"extra_pvcs": [SHARED, HASHED]}
    await hub.start("cleo")
    hub.cluster.faults["annotate"] = [Conflict("modified")]
    with pytest.raises(Doubt, match="modified"):
        await hub.rename_user("cleo", "cleopatra")
    said = {one.annotations[marks.USER] for one in hub.cluster.stored.values()}
    assert said == {"cleo", "cleopatra"}
    assert hub.former("cleopatra") == ["cleo"]
    await hub.start("cleopatra")
    assert {one.annotations[marks.USER] for one in hub.cluster.stored.values()} == {"cleopatra"}


async def test_what_servers_share_is_handed_over_once(hub):
    await hub.start("cleo")
    await hub.start("cleo", "gpu")
    await hub.rename_user("cleo", "cleopatra")
    assert hub.cluster.verbs().count("annotate") == 1


@pytest.mark.parametrize(
    "found",
    [
        claim("postgres-cleo", {marks.USER: "bob", marks.VOLUME: SHARED["name"]}),
        claim("postgres-cleo", {**CLEO.annotations("x"), marks.VOLUME: "other"}, CLEO.labels()),
        claim("postgres-cleo", labels={"component": "singleuser-storage"}),
        None,
    ],
    ids=["another's", "another volume", "a home", "gone"],
)
async def test_what_is_not_theirs_is_not_handed_over(hub, found):
    await hub.start("cleo")
    del hub.cluster.stored["postgres-cleo"]
    hub.cluster.put(*[found] if found else [])
    before = dict(hub.cluster.stored)
    await hub.rename_user("cleo", "cleopatra")
    assert hub.cluster.stored == before


async def test_a_lost_volume_of_a_renamed_user_is_not_made_anew_for_their_namesake(hub):
    """The renamed user would mount it then, by the former name on it."""
    await hub.start("cleo")
    await hub.rename_user("cleo", "cleopatra")
    hub.lose("postgres-cleo")
    error = await refused(hub, "cleo")
    assert error.code == "taken"
    assert "claim postgres-cleo would be made, but the hub's record of cleopatra" in error.story


async def test_a_renamed_user_does_not_get_what_a_namesake_made_later(hub):
    """An entry that is new: the namesake was the first to start with it."""
    hub.settings = {"extra_pvcs": [SHARED]}
    await hub.start("cleo")
    await hub.rename_user("cleo", "cleopatra")
    hub.restart()
    hub.settings = {"extra_pvcs": [HASHED]}
    await hub.start("cleo")
    (theirs,) = hub.on_record("cleo").values()
    await hub.start("cleopatra")
    mine = hub.on_record("cleopatra")[HASHED["name"]]
    assert mine != theirs
    assert hub.cluster.stored[theirs].annotations[marks.USER] == "cleo"
    assert hub.cluster.stored[mine].annotations[marks.USER] == "cleopatra"


@pytest.mark.parametrize("beyond_doubt", ["an operator's word", "a stable id", ""])
async def test_only_an_operator_or_a_stable_id_beats_the_record_of_somebody_else(hub, beyond_doubt):
    """A user who was renamed elsewhere: the hub has a row of each name."""
    await hub.start("cleo")
    word = {marks.DECIDED: "2026-05-01"} if beyond_doubt == "an operator's word" else {}
    owner = replace(CLEOPATRA, identity="sub-1" if beyond_doubt == "a stable id" else None)
    hub.cluster.put(
        claim(
            "postgres-cleo",
            {**owner.annotations("extra"), marks.VOLUME: SHARED["name"], **word},
            {"component": "extra-pvc", **owner.labels()},
            capacity="1Gi",
            access_modes=("ReadWriteOnce",),
        )
    )
    if owner.identity:
        hub.settings = {"identity_key": "sub"}
        made = hub.server("cleopatra")

        async def auth_state() -> dict[str, str]:
            return {"sub": "sub-1"}

        made.user.get_auth_state = auth_state
    if beyond_doubt:
        await hub.start("cleopatra")
        assert hub.on_record("cleopatra") == {SHARED["name"]: "postgres-cleo"}
    else:
        assert (await refused(hub, "cleopatra")).code == "taken"


async def test_of_the_records_of_others_few_are_parsed(hub, monkeypatch):
    """A hub has 10,000 of them, and one thread."""
    for number in range(8):
        await hub.start(f"user-{number}")
    parsed = []
    unpack = records._unpack
    monkeypatch.setattr(records, "_unpack", lambda state: parsed.append(state) or unpack(state))
    await hub.start("user-7")
    assert parsed == [], "it has a record of its own"
    hub.row("user-7").state = {}
    hub.db.commit()
    hub.restart()
    await hub.start("user-7")
    await hub.start("newcomer")
    # Their own rows, which hold nothing.
    assert parsed == ["{}", "{}"]
    assert hub.on_record("user-7") == {SHARED["name"]: "postgres-user-7"}


# -- a named server that is renamed


@pytest.mark.parametrize("entry", [PER_SERVER, HASHED], ids=lambda one: one["name"])
async def test_volumes_of_a_renamed_server_stay_its_own(hub, entry):
    hub.settings = {"extra_pvcs": [entry, SHARED]}
    await hub.start("ada", "gpu")
    name = hub.on_record("ada", "gpu")[entry["name"]]
    shared = hub.cluster.stored["postgres-ada"]
    await hub.rename_server("ada", "gpu", "cpu")
    now = hub.cluster.stored[name]
    assert (now.annotations[marks.SERVER], now.annotations[marks.VOLUME]) == ("cpu", entry["name"])
    assert now.labels[marks.OWNER_LABEL] == replace(ADA, server="cpu").hash
    assert hub.cluster.stored["postgres-ada"] == shared
    await hub.start("ada", "cpu")
    assert hub.on_record("ada", "cpu")[entry["name"]] == name
    # The next one that is called so.
    error = await refused(hub, "ada", "gpu")
    assert (error.code, name in error.story) == ("taken", True)


async def test_the_next_server_of_that_name_gets_none_either_where_nothing_was_handed_over(hub):
    """Renamed before this library looked after it, or under another one."""
    hub.settings = {"extra_pvcs": [PER_SERVER]}
    await hub.start("ada", "gpu")
    hub.row("ada", "gpu").name = "cpu"
    hub.db.commit()
    hub.restart()
    error = await refused(hub, "ada", "gpu")
    assert error.code == "taken"
    assert "the hub's record of ada/cpu names it" in error.story


@pytest.mark.parametrize("fault", [FORBIDDEN, Conflict("modified")], ids=str)
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_server_whose_claims_cannot_all_follow_is_not_renamed(hub, position, fault):
    entries = [{"name": f"{letter}-{{user_server}}", "capacity": "1Gi"} for letter in "abc"]
    hub.settings = {"extra_pvcs": entries}
    await hub.start("ada", "gpu")
    before = {name: (one.annotations, one.labels) for name, one in hub.cluster.stored.items()}
    hub.cluster.faults["annotate"] = [*[None] * position, fault]
    with pytest.raises(HTTPError) as caught:
        await hub.rename_server("ada", "gpu", "cpu")
    story = str(caught.value)
    assert caught.value.status_code == 409
    assert f"its volume {'abc'[position]}-ada--gpu could not be given the new name" in story
    assert "Nothing was changed. Run: jhub-safety claims explain ada gpu" in story
    after = {name: (one.annotations, one.labels) for name, one in hub.cluster.stored.items()}
    assert after == before
    await hub.start("ada", "gpu")


async def test_what_cannot_be_taken_back_is_told_and_renaming_once_more_mends_it(hub):
    entries = [{"name": f"{letter}-{{user_server}}", "capacity": "1Gi"} for letter in "ab"]
    hub.settings = {"extra_pvcs": entries}
    await hub.start("ada", "gpu")
    hub.cluster.faults["annotate"] = [None, Doubt("HTTP 503"), Doubt("HTTP 500")]
    with pytest.raises(HTTPError, match=r"not certain that a-ada--gpu \(HTTP 500\) carries the"):
        await hub.rename_server("ada", "gpu", "cpu")
    await hub.rename_server("ada", "gpu", "cpu")
    assert {one.annotations[marks.SERVER] for one in hub.cluster.stored.values()} == {"cpu"}
    await hub.start("ada", "cpu")


async def test_one_that_was_handed_over_without_an_answer_is_taken_back_too(hub, monkeypatch):
    hub.settings = {"extra_pvcs": [PER_SERVER]}
    await hub.start("ada", "gpu")
    before = hub.cluster.stored["db-ada--gpu"]
    annotate = hub.cluster.annotate

    async def unheard(*args):
        await annotate(*args)
        monkeypatch.setattr(hub.cluster, "annotate", annotate)
        raise Doubt("no answer within 10 s")

    monkeypatch.setattr(hub.cluster, "annotate", unheard)
    with pytest.raises(HTTPError, match="Nothing was changed"):
        await hub.rename_server("ada", "gpu", "cpu")
    assert hub.cluster.stored["db-ada--gpu"].annotations == before.annotations
    await hub.start("ada", "gpu")


async def test_volumes_go_back_when_the_home_cannot_follow(hub, monkeypatch):
    hub.settings = {"extra_pvcs": [PER_SERVER]}
    await hub.start("ada", "gpu")
    before = hub.cluster.stored["db-ada--gpu"]
    made = hub.server("ada", "gpu")

    async def fails(_, __):
        raise Doubt("HTTP 503")

    monkeypatch.setattr(made, "_rename_home", fails)
    with pytest.raises(HTTPError, match="its home could not be given"):
        await hub.rename_server("ada", "gpu", "cpu")
    assert hub.cluster.stored["db-ada--gpu"].annotations == before.annotations


# -- a volume that servers share, and that is lost


async def test_a_lost_volume_is_refused_at_every_server_of_its_user(hub):
    """Another server made an empty one in its place, and that was the first one's, too."""
    await hub.start("ada")
    hub.lose("postgres-ada")
    for server in ("", "two", ""):
        error = await refused(hub, "ada", server)
        assert error.code == "gone"
        assert "claims forget postgres-ada --user=ada --volume='postgres-{username}'" in error.story


async def test_and_given_up_it_is_made_once_for_all_of_them(hub):
    await hub.start("ada")
    hub.lose("postgres-ada")
    hub.give_up("postgres-ada", ADA, SHARED["name"])
    await hub.start("ada", "two")
    made = dict(hub.cluster.stored)
    await hub.start("ada")
    assert hub.cluster.stored == made
    assert hub.on_record("ada") == hub.on_record("ada", "two") != {}


async def test_what_another_server_has_on_record_costs_one_read(hub):
    await hub.start("ada")
    hub.cluster.calls.clear()
    await hub.start("ada", "two")
    assert hub.cluster.calls == [("read", "postgres-ada")]


async def test_a_new_server_of_a_renamed_user_gets_what_the_others_share(hub):
    """Where no claim may be annotated, the former name is on the others' records alone."""
    await hub.start("cleo")
    hub.cluster.faults["annotate"] = [FORBIDDEN] * 9
    with pytest.raises(Doubt):
        await hub.rename_user("cleo", "cleopatra")
    for _ in range(2):
        await hub.start("cleopatra", "two")
        assert hub.on_record("cleopatra", "two") == {SHARED["name"]: "postgres-cleo"}
        hub.restart()
    assert hub.cluster.stored.keys() == {"postgres-cleo"}


async def test_of_records_that_differ_none_is_believed(hub):
    await hub.start("ada")
    await hub.start("ada", "two")
    hub.servers["ada", "two"]._extra_claims[SHARED["name"]] = "postgres-old"
    hub.save()
    error = await refused(hub, "ada", "three")
    assert error.code == "conflict"
    assert "name different claims for volume postgres-{username}" in error.story
    assert "postgres-ada, postgres-old" in error.story
    # Those with a record of their own go by it, and one that was given up counts no more.
    await hub.start("ada")
    hub.later()
    hub.give_up("postgres-old", ADA, SHARED["name"])
    await hub.start("ada", "three")
    assert hub.on_record("ada", "three") == hub.on_record("ada")
    # Kept for the server that has it on record still.
    await hub.start("ada", "two")
    assert hub.on_record("ada", "two") == hub.on_record("ada")
    assert hub.words == {}


async def test_claims_of_two_servers_that_are_both_lost_can_both_be_given_up(hub):
    """There is one word for the volume."""
    await hub.start("ada")
    await hub.start("ada", "two")
    hub.servers["ada", "two"]._extra_claims[SHARED["name"]] = "postgres-old"
    hub.save()
    hub.lose("postgres-ada")
    for lost in ("postgres-ada", "postgres-old"):
        error = await refused(hub, "ada")
        assert (error.code, f"claims forget {lost} " in error.story) == ("gone", True)
        hub.give_up(lost, ADA, SHARED["name"])
    await hub.start("ada")
    assert hub.on_record("ada") == {SHARED["name"]: "postgres-ada"}


async def test_a_volume_of_each_server_is_none_of_the_others_business(hub):
    hub.settings = {"extra_pvcs": [PER_SERVER]}
    await hub.start("ada")
    hub.lose("db-ada")
    await hub.start("ada", "two")
    assert hub.cluster.stored.keys() == {"db-ada--two"}


# -- a word counts once

LOSSES = pytest.mark.parametrize(
    ("volume", "claim_name", "settings"),
    [
        pytest.param(SHARED["name"], "postgres-ada", {}, id="a volume"),
        pytest.param(PER_SERVER["name"], "db-ada", {"extra_pvcs": [PER_SERVER]}, id="a server's"),
        pytest.param(
            HOME,
            ADA.claim_name,
            {
                "homes": "enforce",
                "extra_pvcs": [],
                "storage_pvc_ensure": True,
                "storage_capacity": "1Gi",
            },
            id="a home",
        ),
    ],
)


@LOSSES
async def test_after_one_loss_was_given_up_the_next_is_refused_again(
    hub, volume, claim_name, settings
):
    """The new claim has the name of the one that was given up."""
    hub.settings = settings
    await hub.start("ada")
    hub.cluster.put(claim("someone", Owner(HUB, "bob").annotations("x"), ADA.labels()))
    for _ in range(2):
        hub.lose(claim_name)
        assert (await refused(hub, "ada")).code == "gone"
        hub.give_up(claim_name, ADA, volume)
        hub.later()
        await hub.start("ada")
        assert claim_name in hub.cluster.stored
        assert hub.words == {}


@LOSSES
@pytest.mark.parametrize("killed", ["with its record saved", "before it was", "not at all"])
async def test_also_when_the_hub_was_killed_or_may_not_delete_the_word(
    hub, volume, claim_name, settings, killed
):
    hub.settings = settings
    hub.cluster.put(claim("someone", Owner(HUB, "bob").annotations("x"), ADA.labels()))
    await hub.start("ada")
    hub.lose(claim_name)
    hub.give_up(claim_name, ADA, volume)
    if killed == "before it was":
        hub.server("ada")._save_state = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            await hub.start("ada")
    else:
        hub.faults = [FORBIDDEN]
        await hub.start("ada", killed=killed == "with its record saved")
    if killed != "not at all":
        hub.restart()
    assert claim_name in hub.cluster.stored
    assert len(hub.words) == 1
    hub.later()
    # One that comes up again has no word in memory; one that went on has, and takes it down.
    await hub.start("ada")
    assert len(hub.words) == (killed != "not at all")
    hub.lose(claim_name)
    assert (await refused(hub, "ada")).code == "gone"
    # And it is no loop.
    hub.give_up(claim_name, ADA, volume)
    await hub.start("ada")
    assert claim_name in hub.cluster.stored
    assert hub.words == {}


@LOSSES
async def test_a_word_costs_one_request_more_in_its_start_and_none_in_any_other(
    hub, volume, claim_name, settings
):
    hub.settings = settings
    await hub.start("ada")
    hub.cluster.put(claim("someone", Owner(HUB, "bob").annotations("x"), ADA.labels()))
    await hub.start("ada")
    assert hub.asked == []
    hub.lose(claim_name)
    hub.give_up(claim_name, ADA, volume)
    await hub.start("ada")
    assert hub.asked == ["read", "delete"]
    await hub.start("ada")
    assert hub.asked == ["read", "delete"]


async def test_looking_at_a_home_takes_no_word_down(hub):
    """``homes = "observe"``: it makes no successor."""
    home = {"extra_pvcs": [], "storage_pvc_ensure": True, "storage_capacity": "1Gi"}
    hub.settings = {"homes": "enforce", **home}
    await hub.start("ada")
    hub.cluster.put(claim("someone", Owner(HUB, "bob").annotations("x"), ADA.labels()))
    hub.lose(ADA.claim_name)
    hub.give_up(ADA.claim_name, ADA, HOME)
    hub.restart()
    hub.settings = {"homes": "observe", "pvc_name_template": "{owner_slug}", **home}
    await hub.start("ada")
    assert "read" in hub.asked
    assert "delete" not in hub.asked
    assert len(hub.words) == 1


async def test_a_word_that_was_given_once_more_meanwhile_is_left(hub):
    await hub.start("ada")
    hub.lose("postgres-ada")
    hub.give_up("postgres-ada", ADA, SHARED["name"])
    hub.faults = [Conflict("the UID in the precondition differs")]
    await hub.start("ada")
    assert len(hub.words) == 1
    await hub.start("ada")
    assert hub.asked == ["read", "delete"]


async def test_a_word_stays_while_a_start_that_went_by_it_is_refused(hub):
    """No class that can be had, a quota: the next try goes by it again."""
    await hub.start("ada")
    hub.lose("postgres-ada")
    hub.give_up("postgres-ada", ADA, SHARED["name"])
    hub.cluster.faults["create"] = [FORBIDDEN]
    assert (await refused(hub, "ada")).code == "incomplete"
    assert len(hub.words) == 1
    await hub.start("ada")
    assert hub.words == {}


async def test_a_claim_that_was_brought_back_makes_an_earlier_word_void(hub):
    await hub.start("ada")
    kept = hub.cluster.stored["postgres-ada"]
    hub.lose("postgres-ada")
    hub.give_up("postgres-ada", ADA, SHARED["name"])
    hub.later()
    hub.cluster.put(replace(kept, uid="reattached", created=hub.cluster.now))
    await hub.start("ada")
    hub.lose("postgres-ada")
    assert (await refused(hub, "ada")).code == "gone"


@pytest.mark.parametrize("value", [None, 7, {"postgres-{username}": 7}, {"x": "never"}], ids=repr)
async def test_a_record_that_does_not_say_when_its_claim_was_made_can_be_given_up(hub, value):
    """One of before this was written down; else its user could never start again."""
    await hub.start("ada")
    row = hub.row("ada")
    row.state = {**row.state, CLAIMS_MADE: value}
    hub.db.commit()
    hub.restart()
    hub.lose("postgres-ada")
    hub.give_up("postgres-ada", ADA, SHARED["name"])
    await hub.start("ada")
    assert "postgres-ada" in hub.cluster.stored
