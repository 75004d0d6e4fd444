"""The database is looked at before the hub opens it, and while it runs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from kubernetes_asyncio import client as kube
from kubespawner import KubeSpawner
from kubespawner.clients import load_config, shared_client
from sqlalchemy import event

from jhub_safety import metrics
from jhub_safety.cluster import landmark
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.cluster.notes import Note
from jhub_safety.errors import Doubt, SafetyError
from jhub_safety.hub.holding import Hold
from jhub_safety.hub.recovering import (
    Gathered,
    RunningLab,
    configured_admins,
    former_identity,
    gather,
    rebuild,
    relink,
    set_aside,
)
from jhub_safety.hub.rescuing import FileId, file_id, rescue
from jhub_safety.hub.running import RunningHub
from jhub_safety.hub.snapshots import backups_of, restore_newest
from jhub_safety.hubdb import condition, identity, repair
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.hubdb.guarding import (
    UNKNOWN,
    WAITING,
    Case,
    Decision,
    Fingerprint,
    Row,
    Verdict,
    decide,
    is_fewer,
)
from jhub_safety.hubdb.known import ABOUT, FiledKnown, Known, NotedKnown
from jhub_safety.sessions.kubernetes import KubernetesInventory
from jhub_safety.settings import SafetySettings, effective

#: Seconds between two looks of a hub that holds.
HOLDING = 5.0
#: Seconds after which a fingerprint is taken anew although nothing has changed.
OLD = 600.0
#: Seconds between two looks before a loss under a running hub is believed.
AGAIN = 5.0
#: Seconds between two attempts to make the database again.
RETRY = 60.0
#: Seconds after users were deleted until the next look: one that is killed soon after must not
#: find fewer users than known.
SOON = 2.0
#: Seconds for the last fingerprint of a hub that ends.
AT_THE_END = 5.0
#: What the process of a hub ends with whose database was lost under it.
LOST_UNDER_IT = 70
_Result = TypeVar("_Result")


def apart(make: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run a coroutine to its end in a thread of its own.

    ``init_db`` is synchronous, and is called in the running loop.
    """
    found: list[_Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(asyncio.run(make()))
        except BaseException as error:  # noqa: BLE001 - raised again below, where it belongs
            failed.append(error)

    thread = threading.Thread(target=run, name="jhub-safety-guard", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


class HubGuard:
    """The guard of one hub process, with all that it needs of the hub."""

    def __init__(self, app: JupyterHub, spawner_class: type | None) -> None:
        self._app, self._class = app, spawner_class
        self.guard = DatabaseGuard(config=app.config, log=app.log)
        self._told = ("", "")
        self._file: FileId | None = None
        #: Users that the hub itself has deleted since the last fingerprint.
        self._deleted = 0
        self._last: Fingerprint | None = None
        self._task: asyncio.Task[None] | None = None
        #: None: not known whether there are any.
        self._to_relink: tuple[RunningLab, ...] | None = None
        self._wake = asyncio.Event()
        self._tried = -RETRY
        self._first = False
        self._rescued: Path | None = None

    # -- the cluster, from any loop

    def _setting(self, name: str, default: Any = None) -> Any:
        value = effective(self._class, self._app.config, name) if self._class else None
        return default if value is None else value

    @property
    def namespace(self) -> str:
        by_user = bool(self._setting("enable_user_namespaces", False))
        namespace = None if by_user else self._setting("namespace")
        return str(namespace or KubeSpawner._namespace_default(KubeSpawner))

    @property
    def hub_name(self) -> str:
        return str(self._setting("hub_name") or self.namespace)

    @property
    def journal(self) -> str:
        return str(self._setting("journal", SafetySettings.journal.default_value))

    def _api(self) -> kube.CoreV1Api:
        load_config(
            host=self._setting("k8s_api_host", ""),
            ssl_ca_cert=self._setting("k8s_api_ssl_ca_cert", ""),
            verify_ssl=self._setting("k8s_api_verify_ssl"),
        )
        return kube.CoreV1Api(kube.ApiClient())

    def _known(self, api: kube.CoreV1Api | None) -> Known:
        if self.guard.fingerprint_file:
            return FiledKnown(Path(self.guard.fingerprint_file))
        assert api is not None  # noqa: S101 - usable() says so
        first, second = (Note(api, self.namespace, self.hub_name, about) for about in ABOUT)
        return NotedKnown((first, second))

    async def _homes(self, api: kube.CoreV1Api | None) -> bool:
        if api is None:
            return False
        if await landmark.uid(api, self.namespace, self.hub_name, landmark.HOMES) is not None:
            return True
        claims = ClaimsApi(api, self.namespace, patience=10)
        return bool(await claims.list("component=singleuser-storage"))

    def usable(self) -> str:
        """Why there is nothing to guard, or no way to; "" when there is."""
        if not self.guard.enabled:
            return "DatabaseGuard.enabled is off"
        if self._app.reset_db:
            return "--reset-db was given"
        url = self._app.db_url
        if url.startswith("sqlite") and condition.sqlite_path(url) is None:
            return "the database is in memory"
        if self._class is None and not self.guard.fingerprint_file:
            return "there is no cluster for fingerprints; set DatabaseGuard.fingerprint_file"
        return ""

    async def _with_guard(
        self, work: Callable[[DatabaseGuard], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        api = self._api() if self._class is not None else None
        try:
            self.guard.attach(
                self._app.db_url,
                self._known(api),
                lambda: self._homes(api),
                connect_args=self._app.db_kwargs.get("connect_args"),
            )
            return await work(self.guard)
        finally:
            if api is not None:
                await api.api_client.close()

    # -- before the database is opened

    def before_database(self) -> None:
        """Returns when the hub may open its database."""
        if why := self.usable():
            self._app.log.info("The hub's database is not guarded: %s", why)
            return
        hold: Hold | None = None
        said = ""
        try:
            while True:
                case, decision = self._look()
                metrics.DATABASE_GUARD.labels(decision.row, decision.verdict).inc()
                if decision.verdict in (Verdict.SERVE, Verdict.ALARM):
                    self._first = decision.row is Row.FIRST_START
                    self._say(decision)
                    return
                if decision.verdict is Verdict.RECOVER:
                    if time.monotonic() - self._tried >= RETRY:
                        self._tried = time.monotonic()
                        if self._recover(case, decision):
                            continue
                elif decision.row != said:
                    said = decision.row
                    self._say(decision)
                self._told = (decision.row, "jhub-safety db status")
                hold = hold or self._hold()
                time.sleep(HOLDING)
        finally:
            if hold is not None:
                hold.close()

    def _look(self) -> tuple[Case, Decision]:
        return apart(lambda: self._with_guard(lambda guard: guard.look()))

    def _recover(self, case: Case, decision: Decision) -> bool:
        """True: the database was made again, or is not as it was; it is to be looked at anew."""
        log, url = self._app.log, self._app.db_url
        begun = time.monotonic()
        try:
            gathered = apart(self._gather)
            # Another hub, or a person, may have made it good meanwhile.
            if self._look()[1] != decision:
                self._tried = -RETRY
                return True
            restored = apart(self._restore)
            if restored is None and not gathered.people.users:
                raise Doubt("no claim and no lab in the cluster names a user")
            aside: object = restored["aside"] if restored else None
            if restored is None and decision.row is not Row.NO_USERS:
                aside = set_aside(url)
            elif restored is not None:
                # At once: a hub that is killed before would take it for an older copy, and hold.
                apart(lambda: self._with_guard(lambda guard: guard.take()))
            written = rebuild(
                url,
                gathered.people,
                admins=configured_admins(self._app.config),
                db_kwargs=self._app.db_kwargs,
                former=former_identity(case),
            )
            apart(lambda: self._with_guard(lambda guard: guard.take()))
        except SafetyError as error:
            self._say(
                Decision(decision.row, Verdict.HOLD, f"{decision.why}. Not recovered: {error}")
            )
            return False
        self._to_relink = gathered.labs
        log.warning(
            "The hub's database (%s): %s. It was made again in %.1f s%s, and from the cluster: %d "
            "users more, %d of their servers, %d labs that run%s",
            decision.row,
            decision.why,
            time.monotonic() - begun,
            f" from snapshot {restored['snapshot']} ({restored['users']} users)"
            if restored
            else "",
            written.users,
            written.servers,
            len(gathered.labs),
            f". What was left of it is {aside}" if aside else "",
        )
        for one in gathered.people.unclear:
            log.warning("Claim %s: %s; nobody was made for it", one.claim, one.why)
        metrics.DATABASE_GUARD.labels(decision.row, "recovered").inc()
        return True

    async def _restore(self) -> dict[str, Any] | None:
        backups = backups_of(self._app, self.hub_name, self.journal)
        return await restore_newest(backups, self._app.db_url)

    async def _gather(self) -> Gathered:
        if self._class is None:
            raise Doubt("there is no cluster to ask who the users were")
        api = self._api()
        try:
            return await gather(
                api,
                self.namespace,
                self.hub_name,
                component=self._setting("component_label", "singleuser-server"),
                everywhere=bool(self._setting("enable_user_namespaces", False)),
            )
        finally:
            await api.api_client.close()

    async def _relink(self) -> None:
        """Of a database that was made again; by this process, one that was killed, or a command."""
        if not identity.to_relink(self._app.db.connection()):
            return
        labs = self._to_relink
        if labs is None:
            labs = (await self._gather()).labs
        inventory = KubernetesInventory(
            shared_client("CoreV1Api"),
            self.hub_name,
            self.namespace,
            component=self._setting("component_label", "singleuser-server"),
            everywhere=bool(self._setting("enable_user_namespaces", False)),
        )
        hub = RunningHub(self._app, inventory)
        done = await relink(hub, labs, self._app.log)
        identity.relinked(self._app.db.connection())
        self._app.db.commit()
        self._app.log.warning("%d of %d running labs are sessions again", done, len(labs))

    def _hold(self) -> Hold | None:
        address = _address(self._app)
        try:
            hold = Hold(address, self._app.base_url, lambda: self._told)
        except OSError as error:
            self._app.log.warning("No page while the hub holds, at %s: %s", address, error)
            return None
        self._app.log.warning("The hub holds, and says so at http://%s:%s", *address)
        return hold

    def _say(self, decision: Decision) -> None:
        log = self._app.log
        if decision.verdict is Verdict.SERVE:
            log.info("The hub's database: %s", decision.why)
        elif decision.verdict is Verdict.ALARM:
            log.error(
                "The hub's database (%s): %s. The hub serves all the same; homes that exist are "
                "adopted, none is made new in their place. Run: jhub-safety db status",
                decision.row,
                decision.why,
            )
        else:
            log.critical(
                "The hub's database (%s): %s. Nobody can log in; nothing was changed, and running "
                "labs are left alone. Run where the hub runs: jhub-safety db status",
                decision.row,
                decision.why,
            )

    def settle(self) -> None:
        """Of a database that the hub has made just now; at its next start it would hold on it."""
        if self._first:
            repair.settle(self._app.db.connection())
            self._app.db.commit()

    # -- while the hub runs

    def begin(self) -> None:
        if self.usable():
            return
        event.listen(orm.User, "after_delete", self._count_deletion)
        self._file = file_id(self._app.db_url)
        self._task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._deleted:
                # The next hub would find fewer users than known.
                with suppress(SafetyError, TimeoutError):
                    async with asyncio.timeout(AT_THE_END):
                        await self._with_guard(self._pass)

    def _count_deletion(self, *_: Any) -> None:
        self._deleted += 1
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._try(self._relink, "Running labs were not taken up")
            look = partial(self._with_guard, self._pass)
            await self._try(look, "The hub's database could not be looked at")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.guard.interval):
                    await self._wake.wait()
                    await asyncio.sleep(SOON)
            self._wake.clear()

    async def _try(self, work: Callable[[], Awaitable[None]], failed: str) -> None:
        try:
            await work()
        except SafetyError as error:
            self._app.log.warning("%s: %s", failed, error)
        except Exception:
            self._app.log.exception("%s", failed)

    async def _look_while_running(self, guard: DatabaseGuard) -> tuple[Case, Decision, bool]:
        """With whether it is lost."""
        case, decision = await guard.look(thorough=False)
        if case.before is UNKNOWN and self._last is not None:
            # The cluster does not answer; what this process wrote itself is known all the same.
            case = replace(case, before=self._last)
            decision = decide(case, guard.on_loss)
        if decision.row in WAITING:
            # Not lost. This hub cannot write either, and says so; its labs' users go on working,
            # which they could not with a hub that holds.
            self._app.log.error("The hub's database (%s): %s", decision.row, decision.why)
            metrics.DATABASE_GUARD.labels(decision.row, "seen-while-running").inc()
        gone = decision.verdict in (Verdict.RECOVER, Verdict.HOLD)
        gone = gone and decision.row not in WAITING | {Row.UNKNOWN_BEFORE}
        return case, decision, gone or self._replaced()

    async def _pass(self, guard: DatabaseGuard) -> None:
        case, decision, lost = await self._look_while_running(guard)
        if lost and not self._explained(case, decision):
            await asyncio.sleep(AGAIN)
            case, decision, lost = await self._look_while_running(guard)
            if lost and not self._explained(case, decision):
                self._lost(decision)
                return
        if decision.row is Row.UNKNOWN_BEFORE or decision.row in WAITING:
            return
        before = case.before if isinstance(case.before, Fingerprint) else None
        known = self._last or before
        now = case.condition
        same = known is not None and (known.users, known.highest_id, known.revision) == (
            now.users,
            now.highest_id,
            now.revision,
        )
        if not (same and self._last and self._age(self._last) < OLD):
            # Those that are deleted meanwhile count for the next one.
            deleted = self._deleted
            told = decision.row in (Row.AS_BEFORE, Row.FEWER_USERS, Row.NO_USERS)
            sure = before is not None and before.users > 0 and told and not now.renewed
            self._last = await guard.take(like=before if sure else None, deleted=deleted)
            self._deleted -= deleted

    @staticmethod
    def _age(fingerprint: Fingerprint) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(fingerprint.taken)).total_seconds()

    def _explained(self, case: Case, decision: Decision) -> bool:
        """Users are fewer since the hub deleted them."""
        before = case.before
        return (
            not self._replaced()
            and decision.row in (Row.FEWER_USERS, Row.NO_USERS)
            and isinstance(before, Fingerprint)
            and not is_fewer(case.condition.users + self._deleted, before.users)
        )

    def _replaced(self) -> bool:
        return self._file is not None and file_id(self._app.db_url) not in (self._file, None)

    def _lost(self, decision: Decision) -> None:
        """The database went away under a hub that runs."""
        metrics.DATABASE_GUARD.labels(decision.row, "lost-while-running").inc()
        log = self._app.log
        if self._rescued is None:
            self._rescued = rescue(self._app, self._file)
        rescued = self._rescued
        kept = f" What this hub still had was written to {rescued}." if rescued else ""
        why = "its file was replaced" if decision.verdict is Verdict.SERVE else decision.why
        if self.guard.on_loss == "ignore":
            log.error("The hub's database: %s.%s on_loss is ignore: going on", why, kept)
            return
        log.critical(
            "The hub's database: %s.%s This process ends, so that the next one looks at it before "
            "it serves; running labs are left alone",
            why,
            kept,
        )
        # Not the hub's own way out: it would stop and write by a database that is not its own.
        os._exit(LOST_UNDER_IT)


def _address(app: JupyterHub) -> tuple[str, int]:
    """Where the hub would listen (app.py:1250, 6.1.1)."""
    parts = urlsplit(app.hub_bind_url) if app.hub_bind_url else None
    if parts is not None and parts.scheme in ("http", "https"):
        return (parts.hostname or "").replace("*", ""), parts.port or 8081
    return app.hub_ip.replace("*", ""), app.hub_port


def wire(app: JupyterHub, spawner_class: type | None) -> HubGuard:
    """Look while the hub runs, from its start to its end."""
    made = HubGuard(app, spawner_class)
    start, cleanup = app.start, app.cleanup

    @wraps(start)
    async def started() -> None:
        made.settle()
        await start()
        if app._start_future.done():
            made.begin()

    @wraps(cleanup)
    async def cleaned_up() -> None:
        try:
            await made.end()
        finally:
            await cleanup()

    app.start, app.cleanup = started, cleaned_up
    return made
