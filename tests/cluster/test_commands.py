"""What an operator's command says a start will do is what the start then does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from tests.cluster.audit import CLAIMS
from tests.cluster.hubs import Setup
from tests.cluster.shell import Shell
from tests.cluster.space import Home

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.asyncio(loop_scope="module"),
]

DELETES = ("delete", "deletecollection")

TWIN = "twin@school.edu"
TWIN_OLD, TWIN_NEW = "claim-twin-40school-2eedu", "claim-twin-school-edu---9c7538c5"
GONE, GONE_CLAIM = "gone", "claim-of-gone"
HEIR, FORMER, INHERITED = "heir", "former", "claim-of-former"
ROBBED, ROBBED_CLAIM, ROBBER, ROBBED_NEW = "robbed", "claim-on-record", "robber", "restored-data"
TODAY = {"kubespawner_version": "7.1.0"}
#: For the table of users: whom it names, for which server, and which claim.
TABLE = (
    ("carol", "", "restored-carol"),
    ("dave", "", "claim-dave-old"),
    ("frank", "gpu", "restored-frank-gpu"),
    ("erin@school.edu", "", "claim-erin-b"),
)


class Site(Shell):
    """The hub, and the shell of an operator beside it."""

    async def explain(self, user: str, server: str = "") -> dict[str, Any]:
        said = await self.run("explain", user, *([server] if server else []), "--json")
        assert said.status == 0, said.err
        return dict(said.json)

    async def verdict(self, user: str, server: str = "") -> tuple[str, str, str]:
        said = await self.explain(user, server)
        return said["verdict"], said["row"], said["claim"]

    async def start_once(self, user: str, server: str = "") -> Home:
        home = await self.hub.start_lab(user, server)
        await self.hub.stop_lab(user, server)
        return home

    async def all_marks(self) -> dict[str, dict[str, str]]:
        space = self.hub.space
        return {name: await space.marks(name) for name in await space.uids()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(space, hub_factory, tmp_path_factory):
    for name, user in (
        (TWIN_OLD, TWIN),
        (TWIN_NEW, TWIN),
        (INHERITED, FORMER),
        (ROBBED_CLAIM, ROBBER),
        (ROBBED_NEW, None),
        ("restored-carol", None),
        ("claim-dave", "dave"),
        ("claim-dave-old", "dave"),
        ("restored-frank-gpu", None),
        ("claim-erin-b", "erin@school.edu"),
        ("claim-erin-a", "erin@school.edu"),
    ):
        await space.make_claim(name, user)
    hub = await hub_factory(space, Setup())
    hub.remember(GONE, {"pvc_name": GONE_CLAIM, **TODAY})
    hub.remember(FORMER, {"pvc_name": INHERITED, **TODAY})
    hub.remember(ROBBED, {"pvc_name": ROBBED_CLAIM, **TODAY})
    hub.remember("dave", {"pvc_name": "claim-dave", **TODAY})
    await hub.start()
    return Site(hub, tmp_path_factory.mktemp("operator"))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_is_deleted(site: Site, audit):
    """Whoever does it, operator or hub: no claim that was there is gone or another one."""
    before = await site.hub.space.uids()
    yield
    after = await site.hub.space.uids()
    assert {name: after.get(name) for name in before} == before
    assert audit.calls(namespace=site.hub.space.name, resource=CLAIMS, verbs=DELETES) == []


async def test_a_new_user_gets_the_very_claim_that_explain_names(site: Site):
    before = await site.hub.space.uids()
    verdict, row, name = await site.verdict("newcomer")
    assert (verdict, row) == ("create", "new")
    assert await site.hub.space.uids() == before, "explaining makes nothing"

    home = await site.start_once("newcomer")

    assert await site.hub.space.uids() == before | {name: home.uid}
    assert await site.verdict("newcomer") == ("mount", "known", name)
    assert await site.start_once("newcomer") == home


async def test_the_list_shows_every_claim_and_whose_it_is(site: Site):
    uids = await site.hub.space.uids()

    told = (await site.run("list", "--json")).json
    human = await site.run("list")

    assert {one["name"]: one["uid"] for one in told} == uids
    owners = {one["name"]: (one["owner"], one["by"]) for one in told}
    assert owners["claim-dave"] == ("dave", "kubespawner")
    assert owners["restored-carol"] == ("nobody", "")
    assert human.status == 0
    title, *rows = human.out.splitlines()
    assert title.split()[:3] == ["CLAIM", "OWNER", "BY"]
    assert [row.split()[0] for row in rows] == sorted(uids)
    assert f"{len(uids)} claims; " in human.err
    assert f"namespace {site.hub.space.name}" in human.err


async def test_explaining_everybody_is_the_sum_of_explaining_each_and_changes_nothing(site: Site):
    before = await site.all_marks()

    told = await site.run("explain", "--all", "--json")
    human = await site.run("explain", "--all")

    answers = {(one["user"], one["server"]): one for one in told.json}
    assert {TWIN, GONE, FORMER, ROBBED, "dave"} <= {user for user, _ in answers}
    for user in (TWIN, GONE, ROBBED, "dave"):
        assert answers[user, ""] == await site.explain(user)
    counts = dict.fromkeys(("mount", "adopt", "create", "refuse"), 0)
    for one in answers.values():
        counts[one["verdict"]] += 1
    assert human.out.splitlines()[-1] == f"{len(answers)} servers: " + ", ".join(
        f"{count} {verdict}" for verdict, count in counts.items()
    )
    assert await site.all_marks() == before


async def test_a_user_with_two_claims_starts_with_the_one_that_an_operator_adopts(site: Site):
    uids, before = await site.hub.space.uids(), await site.all_marks()
    assert (await site.verdict(TWIN))[:2] == ("refuse", "several")
    assert (await site.hub.refusal(TWIN)).status == 409
    adopt = ("adopt", TWIN_OLD, f"--user={TWIN}")

    declined = await site.run(*adopt, answer="n\n")
    assert declined.status == 1
    assert "annotate-claim " + TWIN_OLD in declined.err, "the plan is shown first"
    assert "Go on?" in declined.err
    assert await site.all_marks() == before

    agreed = await site.run(*adopt, answer="y\n")
    assert (agreed.status, agreed.out) == (0, "1 of 1 done\n")
    assert await site.verdict(TWIN) == ("mount", "known", TWIN_OLD)
    assert await site.start_once(TWIN) == Home(TWIN_OLD, uids[TWIN_OLD])
    assert (await site.all_marks())[TWIN_NEW] == before[TWIN_NEW]
    last = site.journal()[-1]
    assert (last["name"], last["uid"], last["outcome"]) == (TWIN_OLD, uids[TWIN_OLD], "done")


async def test_a_home_that_was_swapped_by_mistake_is_swapped_back_with_one_more_command(site: Site):
    first = await site.hub.start_lab("undecided")
    await site.hub.stop_lab("undecided")
    second = Home("second-home", await site.hub.space.make_claim("second-home"))

    for wanted in (second, first, second):
        done = await site.run("adopt", wanted.name, "--user=undecided", "--yes")
        assert done.status == 0, done.err
        assert (await site.verdict("undecided"))[::2] == ("mount", wanted.name)
        assert await site.start_once("undecided") == wanted


async def test_a_table_of_users_gives_each_the_claim_that_stands_beside_their_name(site: Site):
    uids = await site.hub.space.uids()
    file = site.directory / "table.csv"
    lines = [f"{claim},{user},{server}" for user, server, claim in TABLE]
    # As a spreadsheet saves it: with a byte order mark and Windows' line ends.
    file.write_bytes(("\ufeff" + "\r\n".join(["claim,user,server", *lines])).encode())

    done = await site.run("adopt", f"--from-csv={file}", "--yes", "--json")

    assert done.status == 0, done.err
    assert {one["result"] for one in done.json["outcomes"]} == {"done"}
    assert done.json["refusals"] == []
    for user, server, claim in TABLE:
        assert (await site.verdict(user, server))[::2] == ("mount", claim)
    homes = await asyncio.gather(*(site.start_once(user, server) for user, server, _ in TABLE))
    assert homes == [Home(claim, uids[claim]) for _, _, claim in TABLE]
    assert await site.hub.space.uids() == uids


async def test_one_wrong_line_of_a_table_is_refused_and_said_and_the_others_are_done(site: Site):
    uid = await site.hub.space.make_claim("restored-gina")
    file = site.directory / "wrong.csv"
    file.write_text("user,claim\nhugo,no-such-claim\ngina,restored-gina\n")

    done = await site.run("adopt", f"--from-csv={file}", "--yes")

    assert done.status == 1
    assert "refused hugo: there is no claim no-such-claim" in done.err
    assert done.out == "1 of 1 done\n"
    assert await site.start_once("gina") == Home("restored-gina", uid)


async def test_a_user_whose_claim_is_gone_gets_a_new_one_only_after_it_was_given_up(site: Site):
    before = await site.hub.space.uids()
    assert await site.verdict(GONE) == ("refuse", "gone", GONE_CLAIM)
    page = await site.hub.refusal(GONE)
    assert page.status == 409
    assert "the volume that holds your files was not found" in page.text
    forget = (await site.explain(GONE))["command"].removeprefix("jhub-safety claims ").split()

    declined = await site.run(*forget, answer="n\n")
    assert (declined.status, declined.out) == (1, "")
    assert (await site.verdict(GONE))[:2] == ("refuse", "gone")

    agreed = await site.run(*forget, answer="y\n")
    assert agreed.status == 0, agreed.err
    verdict, row, name = await site.verdict(GONE)
    assert (verdict, row) == ("create", "new")
    home = await site.start_once(GONE)
    assert home.name == name
    assert await site.hub.space.uids() == before | {name: home.uid}
    assert await site.verdict(GONE) == ("mount", "known", name)


@pytest.mark.parametrize(
    ("claim", "user", "words"),
    [
        (TWIN_NEW, TWIN, f"claim {TWIN_NEW} exists; nothing was changed"),
        ("claim-that-nobody-had", "newcomer", "the hub's record of newcomer names "),
    ],
    ids=["it exists", "the record names another"],
)
async def test_only_the_missing_claim_on_record_can_be_given_up(site: Site, claim, user, words):
    before = await site.verdict(user)
    said = await site.run("forget", claim, f"--user={user}", "--yes")
    assert said.status == 1
    assert words in " ".join(said.err.split())
    assert await site.verdict(user) == before


async def test_without_the_hubs_database_an_answer_says_that_records_are_unknown(site: Site):
    missing = site.directory / "no-such.sqlite"
    said = await site.run("explain", "dave", f"--db-url=sqlite:///{missing}", "--json")
    assert said.status == 0
    assert said.json["saved"] is None
    assert "Without the hub's records" in said.err
    assert not missing.exists()


async def test_a_claim_given_to_somebody_else_is_theirs_at_the_next_start(site: Site):
    uid = (await site.hub.space.uids())[INHERITED]
    done = await site.run("adopt", INHERITED, f"--user={HEIR}", "--yes")
    assert done.status == 0, done.err
    promised = await site.verdict(HEIR)
    assert await site.start_once(HEIR) == Home(INHERITED, uid)
    assert promised == ("mount", "known", INHERITED)


async def test_the_command_in_a_refusal_ends_it_for_a_user_whose_claim_is_somebody_elses(
    site: Site,
):
    uid = (await site.hub.space.uids())[ROBBED_NEW]
    said = await site.explain(ROBBED)
    assert (said["row"], said["command"]) == (
        "taken",
        f"jhub-safety claims adopt CLAIM --user={ROBBED}",
    )
    done = await site.run("adopt", ROBBED_NEW, f"--user={ROBBED}", "--yes")
    assert done.status == 0, done.err
    promised = await site.verdict(ROBBED)
    assert await site.start_once(ROBBED) == Home(ROBBED_NEW, uid)
    assert promised[::2] == ("mount", ROBBED_NEW)
