"""Many real spawners at once in one process, as in a hub: `python -m tests.cluster.storm NS N`.

Each goes as far as KubeSpawner goes before it makes a claim or a pod: a thousand pods are not what
a storm of logins is about. KUBECONFIG says where; prints JSON: seconds, and each user's claim.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

from jupyterhub import orm
from jupyterhub.objects import Hub
from traitlets.config import Config

from jhub_safety import SafeKubeSpawner


def users(number: int) -> list[str]:
    return [f"user{index:04}" for index in range(number)]


def _spawner(record: orm.Spawner, namespace: str) -> Any:
    user = record.user.name
    config = Config()
    config.KubeSpawner.namespace = namespace
    config.KubeSpawner.storage_pvc_ensure = True
    log = logging.getLogger("storm")
    log.setLevel(logging.WARNING)
    stub = SimpleNamespace(
        name=user, id=1, url=f"/user/{user}/", escaped_name=user, settings={}, server=None
    )
    return SafeKubeSpawner(
        config=config, hub=Hub(base_url="/hub/"), user=stub, orm_spawner=record, log=log, _mock=True
    )


async def _storm(namespace: str, number: int) -> None:
    session = orm.new_session_factory("sqlite:///:memory:")()
    # The hub has seen these people log in, and knows nothing else of them.
    records = [orm.Spawner(name="", user=orm.User(name=user)) for user in users(number)]
    session.add_all(records)
    session.commit()
    spawners = [_spawner(record, namespace) for record in records]
    begin = time.monotonic()
    await asyncio.gather(*(spawner.load_user_options() for spawner in spawners))
    seconds = time.monotonic() - begin
    await spawners[0].api.api_client.close()
    homes = {spawner.user.name: spawner.pvc_name for spawner in spawners}
    print(json.dumps({"seconds": seconds, "homes": homes}))


if __name__ == "__main__":
    asyncio.run(_storm(sys.argv[1], int(sys.argv[2])))
