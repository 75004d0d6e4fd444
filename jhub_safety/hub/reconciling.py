"""Sessions are compared while the hub runs: wired up after its start, ended before its shutdown."""

from __future__ import annotations

import asyncio
import gc
from functools import wraps
from pathlib import Path
from typing import Any, cast

from jupyterhub.app import JupyterHub
from kubespawner import KubeSpawner
from kubespawner.clients import load_config, shared_client
from traitlets.utils.importstring import import_item

from jhub_safety import __version__
from jhub_safety.cluster.notes import Note
from jhub_safety.control import ControlSocket, socket_path
from jhub_safety.hub.counting import session_count
from jhub_safety.hub.running import RunningHub
from jhub_safety.journal import Journal
from jhub_safety.labs import LabsMixin
from jhub_safety.owner import label_value
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.sessions.operations import Operations
from jhub_safety.sessions.pause import FirstPass, Pause
from jhub_safety.sessions.reconciler import SessionReconciler
from jhub_safety.settings import SafetySettings, effective


class Watch:
    """The reconciler of a hub, with all that it needs of the hub."""

    def __init__(self, app: JupyterHub, spawner_class: type) -> None:
        self._app = app
        self._class = spawner_class
        # With user namespaces KubeSpawner.namespace is the users' (homes.py, _safety_hub).
        by_user = bool(self._setting("enable_user_namespaces", False))
        namespace = None if by_user else self._setting("namespace")
        self.namespace = namespace or KubeSpawner._namespace_default(KubeSpawner)
        self.hub_name = self._setting("hub_name") or self.namespace
        self.pause = Pause(self._note("pause"))
        journal = self._setting("journal", SafetySettings.journal.default_value)
        self.reconciler = SessionReconciler(config=app.config, log=app.log)
        self.inventory = self._make_inventory()
        self.hub = RunningHub(app, self.inventory)
        self.reconciler.attach(
            self.hub,
            self.inventory,
            label=label_value(self.hub_name),
            absences=LabsMixin.absences,
            journal=Journal(Path(journal) if journal else None, log=app.log),
            paused=self.pause.why,
            first_pass=FirstPass(self._note("version"), __version__),
        )
        if self._setting("sessions", "enforce") == "observe":
            self.reconciler.dry_run = True
        self._control = ControlSocket(
            Operations(self.reconciler),
            self.hub_name,
            socket_path(self.hub_name, self.reconciler.control_socket),
            self.hub.logout,
        )
        self._task: asyncio.Task[None] | None = None

    def _setting(self, name: str, default: Any = None) -> Any:
        value = effective(self._class, self._app.config, name)
        return default if value is None else value

    def _api(self) -> Any:
        # As a spawner does it (kubespawner/spawner.py:222, 7.1.0); there is none yet.
        load_config(
            host=self._setting("k8s_api_host", ""),
            ssl_ca_cert=self._setting("k8s_api_ssl_ca_cert", ""),
            verify_ssl=self._setting("k8s_api_verify_ssl"),
        )
        return shared_client("CoreV1Api")

    def _note(self, about: str) -> Note:
        return Note(self._api(), self.namespace, self.hub_name, about)

    def _make_inventory(self) -> Inventory:
        cls = import_item(self.reconciler.inventory_class)
        if not issubclass(cls, KubernetesInventory):
            return cast(
                "Inventory",
                cls(absences=LabsMixin.absences, config=self._app.config, log=self._app.log),
            )
        app = self._app
        made: KubernetesInventory = cls(
            self._api(),
            self.hub_name,
            self.namespace,
            component=self._setting("component_label", "singleuser-server"),
            everywhere=bool(self._setting("enable_user_namespaces", False)),
            absences=LabsMixin.absences,
            timeout=self.reconciler.inventory_timeout,
            count=session_count(app),
            config=app.config,
            log=app.log,
        )
        made.places = LabsMixin.places
        return made

    async def begin(self) -> None:
        # The modules of a hub with kubernetes_asyncio are over a million objects. Each of
        # Python's full collections walks them, and holds the loop for 150 ms and more: what is
        # there now stays to the end, and is not looked at again.
        gc.collect()
        gc.freeze()
        try:
            await self._control.open()
        except OSError as error:
            self._app.log.warning(
                "No control socket at %s (%s): commands cannot ask this hub. Set "
                "SessionReconciler.control_socket to a path that it can make.",
                self._control.path,
                error,
            )
        self._task = asyncio.ensure_future(self.reconciler.run())

    async def end(self) -> None:
        """Cancel a pass that runs; what it has begun to write is complete or will be done again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._control.close()
        await self.inventory.close()


def wire(app: JupyterHub, spawner_class: type) -> None:
    """Begin once the hub has started, and end before it shuts down."""
    start, cleanup = app.start, app.cleanup
    watch: list[Watch] = []

    @wraps(start)
    async def started() -> None:
        await start()
        # "jupyterhub token" and "upgrade-db" return from start() at once.
        if not app._start_future.done():
            return
        try:
            watch.append(Watch(app, spawner_class))
            await watch[0].begin()
        except Exception:
            # The hub serves; what is missing is said.
            app.log.exception("Sessions, routes and labs will not be compared")

    @wraps(cleanup)
    async def cleaned_up() -> None:
        try:
            for one in watch:
                await one.end()
        finally:
            await cleanup()

    app.start, app.cleanup = started, cleaned_up
