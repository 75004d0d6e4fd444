"""A hub whose database is guarded: its settings, its cluster, and where it tells what was done."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub.app import JupyterHub
from kubernetes_asyncio import client as kube
from kubespawner import KubeSpawner
from kubespawner.clients import load_config

from jhub_safety.cluster import events
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.client import in_a_pod, why_not
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hub.recovering import Gathered, gather
from jhub_safety.hubdb import condition
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import Decision
from jhub_safety.hubdb.known import (
    ABOUT,
    FiledKnown,
    Known,
    UnreachableKnown,
    had_homes,
    known_of,
)
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Kind
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.settings import SafetySettings, effective

#: Seconds for an event: a hub that ends waits for it.
TELLING = 5.0
_Result = TypeVar("_Result")


class GuardedHub:
    """*spawner_class*: None on a hub that does not run labs on Kubernetes."""

    def __init__(self, app: JupyterHub, spawner_class: type | None) -> None:
        self.app, self._class = app, spawner_class
        self.guard = DatabaseGuard(config=app.config, log=app.log)
        self._untold = False

    def setting(self, name: str, default: Any = None) -> Any:
        value = effective(self._class, self.app.config, name) if self._class else None
        return default if value is None else value

    @property
    def namespace(self) -> str:
        by_user = bool(self.setting("enable_user_namespaces", False))
        namespace = None if by_user else self.setting("namespace")
        return str(namespace or KubeSpawner._namespace_default(KubeSpawner))

    @property
    def hub_name(self) -> str:
        return str(self.setting("hub_name") or self.namespace)

    @property
    def journal(self) -> str:
        return str(self.setting("journal", SafetySettings.journal.default_value))

    def unguarded(self) -> str:
        """Why there is nothing to guard, or no way to; "" when there is."""
        if not self.guard.enabled:
            return "DatabaseGuard.enabled is off"
        if self.app.reset_db:
            return "--reset-db was given"
        url = self.app.db_url
        if url.startswith("sqlite") and condition.sqlite_path(url) is None:
            return "the database is in memory"
        if self._class is None and not self.guard.fingerprint_file:
            return "there is no cluster for fingerprints; set DatabaseGuard.fingerprint_file"
        return ""

    # -- the cluster, from any loop

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[kube.CoreV1Api]:
        """Raises Doubt when there is none, or no way to it."""
        if self._class is None:
            raise Doubt("this hub has no cluster")
        try:
            load_config(
                host=self.setting("k8s_api_host", ""),
                ssl_ca_cert=self.setting("k8s_api_ssl_ca_cert", ""),
                verify_ssl=self.setting("k8s_api_verify_ssl"),
            )
            api = kube.CoreV1Api(kube.ApiClient())
        except Exception as error:
            # A kubeconfig that is missing or damaged: as unknown as a cluster that is silent.
            raise Doubt(f"no way to the cluster: {why_not(error)}") from error
        try:
            yield api
        finally:
            await api.api_client.close()

    async def with_guard(
        self, work: Callable[[DatabaseGuard], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        """Do *work* with the guard, which then knows what was known of the database.

        A cluster to which there is no way is what is not known, never what is not there.
        """
        file = self.guard.fingerprint_file
        async with AsyncExitStack() as stack:
            known: Known
            try:
                api = await stack.enter_async_context(self.cluster())
            except Doubt as doubt:
                known = FiledKnown(Path(file)) if file else UnreachableKnown(doubt)
                homes = self._no_homes if self._class is None else partial(_unknown, doubt)
            else:
                known = known_of(file, partial(Note, api, self.namespace, self.hub_name))
                homes = partial(had_homes, api, self.namespace, self.hub_name)
            self.guard.attach(
                self.app.db_url,
                known,
                homes,
                connect_args=self.app.db_kwargs.get("connect_args"),
            )
            return await work(self.guard)

    @staticmethod
    async def _no_homes() -> bool:
        return False

    async def gather(self) -> Gathered:
        """What the cluster knows of this hub's users. Raises Doubt."""
        async with self.cluster() as api:
            return await gather(
                self.inventory(api),
                ClaimsApi(api, self.namespace, timeout=30, patience=30),
                self.hub_name,
            )

    def inventory(self, api: kube.CoreV1Api) -> KubernetesInventory:
        return KubernetesInventory(
            api,
            self.hub_name,
            self.namespace,
            component=self.setting("component_label", "singleuser-server"),
            everywhere=bool(self.setting("enable_user_namespaces", False)),
        )

    # -- what was done

    def write(self, kind: Kind, decision: Decision, outcome: str, **more: Any) -> None:
        """A line of the journal about the database."""
        path = Path(self.journal) if self.journal else None
        action = Action(
            kind,
            self.namespace,
            condition.address(self.app.db_url),
            f"{decision.row}: {decision.why}",
        )
        Journal(path, log=self.app.log).write(action, outcome, **more)

    async def tell(self, reason: str, story: str) -> None:
        """A Warning event about the hub's pod; about its fingerprint where it runs in none.

        Never raises: the log has it, too.
        """
        if self._class is None:
            return
        try:
            async with asyncio.timeout(TELLING), self.cluster() as api:
                note = Note(api, self.namespace, self.hub_name, ABOUT[0])
                about = events.About("Secret", note.name)
                if in_a_pod():
                    about = events.About("Pod", socket.gethostname())
                await events.warn(api, self.namespace, about, reason, story)
        except (Conflict, Doubt, TimeoutError) as error:
            if not self._untold:
                self._untold = True
                self.app.log.warning(
                    "What is done about the database is in this log and the journal only, not in "
                    "events: %s",
                    str(error) or type(error).__name__,
                )


async def _unknown(doubt: Doubt) -> bool:
    raise doubt
