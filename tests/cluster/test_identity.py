"""With a stable id from the login provider: names may change hands, homes do not."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cluster.hubs import Hub, Setup

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.hub,
    pytest.mark.asyncio(loop_scope="module"),
]

# A login provider whose accounts stand in a file: user name -> what it says of the account.
PROVIDER = """
import json, os
from jupyterhub.auth import DummyAuthenticator
from jupyterhub.utils import maybe_future

class Provider(DummyAuthenticator):
    async def authenticate(self, handler, data):
        name = await maybe_future(super().authenticate(handler, data))
        accounts = json.loads(open(os.environ["TEST_ACCOUNTS"]).read())
        return name and {"name": name, "auth_state": accounts.get(name)}

c.JupyterHub.authenticator_class = Provider
c.Authenticator.enable_auth_state = True
c.SafeKubeSpawner.identity_key = "sub"
"""


class Provider:
    """Whose name is whose, from the next login on."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.accounts: dict[str, dict[str, str]] = {}

    def set(self, name: str, **account: str) -> None:
        self.accounts[name] = account
        self.file.write_text(json.dumps(self.accounts))

    def remove(self, name: str) -> None:
        del self.accounts[name]
        self.file.write_text(json.dumps(self.accounts))


@pytest.fixture(scope="module")
def provider(tmp_path_factory) -> Provider:
    return Provider(tmp_path_factory.mktemp("provider") / "accounts.json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(space, hub_factory, provider):
    environment = {
        "TEST_ACCOUNTS": str(provider.file),
        "JUPYTERHUB_CRYPT_KEY": secrets.token_hex(32),
    }
    await space.make_claim("claim-erin-40school-2eedu", "erin@school.edu")
    provider.set("nobody", sub="0")
    hub = await hub_factory(space, Setup(extra=PROVIDER, environment=environment))
    await hub.start()
    return hub


async def _used(hub: Hub, user: str):
    home = await hub.start_lab(user)
    await hub.stop_lab(user)
    return home


async def test_an_account_that_is_renamed_at_the_provider_keeps_its_home(hub: Hub, provider):
    provider.set("mary", sub="id-of-mary")
    home = await _used(hub, "mary")
    provider.remove("mary")
    provider.set("mary.married", sub="id-of-mary")

    assert await _used(hub, "mary.married") == home


async def test_a_home_from_before_there_were_ids_is_kept_through_adoption_and_rename(
    hub: Hub, provider
):
    provider.set("erin@school.edu", sub="id-of-erin")
    home = await _used(hub, "erin@school.edu")
    provider.remove("erin@school.edu")
    provider.set("erin@university.edu", sub="id-of-erin")

    assert home.name == "claim-erin-40school-2eedu"
    assert await _used(hub, "erin@university.edu") == home


async def test_whoever_gets_a_name_that_was_somebodys_before_does_not_get_the_home(
    hub: Hub, provider
):
    provider.set("john", sub="id-of-the-first-john")
    home = await _used(hub, "john")
    claims = await hub.space.uids()
    provider.set("john", sub="id-of-the-second-john")

    page = await hub.refusal("john")

    assert page.status == 409
    assert "Nothing was lost or changed" in page.text
    assert await hub.space.uids() == claims
    # Nor when the hub has forgotten that there was a first one.
    await hub.lose_the_database()
    assert (await _used(hub, "john")).uid != home.uid
    assert home.uid in (await hub.space.uids()).values()


async def test_a_login_without_the_id_is_refused_for_now_and_never_goes_by_the_name(
    hub: Hub, provider
):
    provider.set("kim", sub="id-of-kim")
    home = await _used(hub, "kim")
    claims = await hub.space.uids()
    provider.set("kim", other="no id today")

    page = await hub.refusal("kim")

    assert page.status == 409
    assert "your login does not say who you are" in page.text
    assert "Log out, log in and try once more" in page.text
    assert await hub.space.uids() == claims
    provider.set("kim", sub="id-of-kim")
    assert await _used(hub, "kim") == home
