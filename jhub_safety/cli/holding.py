"""Commands that write a hub's database: only while no hub serves on it; one that holds does not."""

from __future__ import annotations

from jhub_safety.cli.hubaccess import Site
from jhub_safety.cli.hubalive import row_of_hold, sign_of_life
from jhub_safety.errors import Doubt, SafetyError


async def be_sure_that_nobody_serves(site: Site, command: str) -> None:
    """Raises SafetyError when a hub serves on this database, Doubt when that is not known."""
    if await row_of_hold(site.hub) is not None:
        return
    try:
        sign = await sign_of_life(site.hub, site.cluster.api, site.namespace, site.db_url)
    except Doubt as doubt:
        raise Doubt(
            f"whether a hub serves on this database is not known: {doubt}. Nothing was changed. "
            f"Run it where the hub runs: kubectl exec -it deploy/hub -- {command}",
            status=doubt.status,
        ) from doubt
    if sign is not None:
        raise SafetyError(
            f"a hub is alive: {sign.what}. Its database is not written behind its back. Nothing "
            "was changed. Stop it first, labs go on running: kubectl -n "
            f"{site.namespace} scale deploy/hub --replicas=0"
        )
