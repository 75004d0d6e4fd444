"""Make a running lab its user's session again. Nothing happens to the lab itself.

What the hub holds of a session, and where it comes from now: the row and the route's target from
the pod's status, the lab's own API token and OAuth client from its environment. Kept to what
``User.spawn`` writes (user.py:835-935, JupyterHub 6.1.1; the same in 5.5.0). Not covered: labs
whose token comes from a Secret, and ``internal_ssl``.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import kubespawner
from jupyterhub import orm, roles, scopes
from jupyterhub.app import JupyterHub
from jupyterhub.objects import Server as HubServer
from jupyterhub.user import User
from jupyterhub.utils import maybe_future, url_escape_path, url_path_join

from jhub_safety.cluster.labs import Lab
from jhub_safety.errors import Conflict
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.model import LabIdentity, Server


async def relink(
    app: JupyterHub,
    user: User,
    inventory: Inventory,
    server: Server,
    name: str,
    identity: LabIdentity,
) -> None:
    """Take up the lab *name* (with the identity's uid) as *server*.

    Raises:
        Conflict: the lab is another one, has ended, or cannot be taken up; nothing was changed.
        Doubt: it could not be read.
    """
    if not isinstance(inventory, KubernetesInventory):
        raise Conflict(f"{type(inventory).__name__} has no labs that can be taken up")
    lab = _checked(app, await inventory.read(identity.namespace, name), identity)
    spawner = _spawner(user, server)
    if spawner.pending or spawner.server is not None:
        raise Conflict(f"{server} has a session")
    # Nobody starts it meanwhile; the API shows it as being checked.
    spawner._check_pending = True
    try:
        url = await _write(app, user, spawner, server, lab)
        answers = await spawner._answers(url)
    except BaseException:
        _undo(app, spawner)
        raise
    finally:
        spawner._check_pending = False
    if not answers:
        _undo(app, spawner)
        raise Conflict(f"lab {name} runs, but does not answer")
    spawner.add_poll_callback(_stopped, app, user, server.name)
    spawner.start_polling()
    await app.proxy.add_user(user, server.name)
    app.log.warning("Lab %s goes on as the session of %s", name, server)


def _checked(app: JupyterHub, lab: Lab | None, identity: LabIdentity) -> Lab:
    if lab is None or lab.uid != identity.uid:
        raise Conflict("that lab is not there any more")
    if lab.phase != "Running" or not lab.alive:
        raise Conflict(f"lab {lab.name} does not run ({lab.reason or lab.phase})")
    if app.internal_ssl:
        raise Conflict("labs with internal_ssl cannot be taken up")
    if not lab.api_token:
        raise Conflict(f"lab {lab.name} does not carry its token in its environment")
    return lab


def _spawner(user: User, server: Server) -> Any:
    if server.name not in user.orm_spawners and hasattr(user, "get_or_create_spawner"):
        return user.get_or_create_spawner(server.name, None)  # JupyterHub 6
    return user.spawners[server.name]


async def _write(app: JupyterHub, user: User, spawner: Any, server: Server, lab: Lab) -> str:
    """Token and OAuth client, then the session; the lab's URL."""
    base_url = url_path_join(user.base_url, url_escape_path(server.name), "/")
    token = orm.APIToken.find(app.db, lab.api_token)
    if token is not None and token.user is not user.orm_user:
        raise Conflict(f"the token of lab {lab.name} is not {server.user}'s")
    oauth_scopes = await spawner._get_oauth_client_allowed_scopes()
    token_scopes = await _token_scopes(app, user, spawner, server)

    # Both commit by themselves, and both may be there already. What makes it a session is one
    # commit of its own, the last: a hub that was killed in between had a session without a lab.
    if token is None:
        orm.APIToken.new(
            token=lab.api_token,
            user=user.orm_user,
            generated=True,
            scopes=token_scopes,
            note=f"Server at {base_url}",
        )
    client = app.oauth_provider.add_client(
        spawner.oauth_client_id,
        lab.api_token,
        url_path_join(user.url, url_escape_path(server.name), "oauth_callback"),
        allowed_scopes=oauth_scopes,
        description=f"Server at {base_url}",
    )

    state = dict(spawner.orm_spawner.state or {})
    state.update(pod_name=lab.name, namespace=lab.namespace)
    state.setdefault("kubespawner_version", kubespawner.__version__)
    if len(lab.claims) == 1:
        state.setdefault("pvc_name", lab.claims[0])
    spawner.load_state(state)
    port = urlsplit(lab.environment.get("JUPYTERHUB_SERVICE_URL", "")).port or spawner.port
    made = orm.Server(proto="http", ip=lab.ip, port=port, base_url=base_url)
    app.db.add(made)
    # The cookie's name is a default of the column.
    app.db.flush()
    spawner.server = HubServer(orm_server=made)
    if lab.started is not None:
        spawner.orm_spawner.started = lab.started.replace(tzinfo=None)
    spawner.orm_spawner.oauth_client = client
    spawner.orm_spawner.state = spawner.get_state()
    app.db.commit()
    spawner.api_token = lab.api_token
    return str(spawner.server.url)


async def _token_scopes(app: JupyterHub, user: User, spawner: Any, server: Server) -> set[str]:
    """What ``User.spawn`` grants a server's token."""
    wanted = spawner.server_token_scopes
    if callable(wanted):
        wanted = await maybe_future(wanted(spawner))
    wanted = set(wanted or orm.Role.find(app.db, "server").scopes)
    mine = f"={user.name}/{server.name}"
    wanted = {f"{one}{mine}" if one.endswith("!server") else one for one in wanted}
    if not {"users:activity!user", "users:activity", "inherit"} & wanted:
        wanted.add("users:activity!user")
    have = roles.roles_to_scopes(roles.get_roles_for(user.orm_user)) | {"inherit"}
    client = app.db.query(orm.OAuthClient).filter_by(identifier="jupyterhub").one()
    granted, _ = scopes._resolve_requested_scopes(wanted, have, user.orm_user, client, app.db)
    return set(granted)


def _undo(app: JupyterHub, spawner: Any) -> None:
    """The row goes; a token that was made stays valid for the lab, and for nobody else."""
    app.db.rollback()
    if spawner.server is not None:
        spawner.server = None
        spawner.orm_spawner.started = None
        app.db.commit()


async def _stopped(app: JupyterHub, user: User, server_name: str) -> None:
    """When a poll finds it gone (as handlers/base.py:1373, 6.1.1)."""
    await app.proxy.delete_user(user, server_name)
    await user.stop(server_name)
