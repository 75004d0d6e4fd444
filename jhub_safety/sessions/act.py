"""Carry out the very plan that was shown, each target read again just before it is touched."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from jhub_safety import metrics
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.journal import Journal
from jhub_safety.plan import Action, Plan
from jhub_safety.sessions.hub import Hub
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import LabIdentity, Server, Session
from jhub_safety.sessions.presence import Presence, ending

#: What an action came to.
DONE, UNCHANGED = "done", "unchanged"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One action and what became of it: ``done``, ``unchanged: why`` or ``failed: why``."""

    action: Action
    outcome: str

    @property
    def failed(self) -> bool:
        return self.outcome.startswith("failed")

    def record(self) -> dict[str, Any]:
        return {**self.action.record(), "outcome": self.outcome}


class Executor:
    """Each action by its kind. One item's error keeps none of the others back."""

    def __init__(
        self,
        hub: Hub,
        inventory: Inventory,
        journal: Journal,
        log: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self._hub = hub
        self._inventory = inventory
        self._journal = journal
        self._log = log
        self._by_kind: dict[str, Callable[[Action], Awaitable[str]]] = {
            "clear-session": self._clear_session,
            "stop-server": self._stop_server,
            "relink-lab": self._relink_lab,
            "delete-lab": self._delete_lab,
            "check-routes": self._check_routes,
            "end-session": self._end_session,
            "unstick": self._unstick,
            "forget-user": self._forget_user,
        }

    async def execute(self, plan: Plan) -> tuple[Outcome, ...]:
        return tuple([await self._one(action, on_word=plan.on_word) for action in plan.actions])

    async def _one(self, action: Action, *, on_word: bool) -> Outcome:
        try:
            if on_word and (session := await self._session(action)) is not None:
                self._inventory.trust(session)
            outcome = await self._by_kind[action.kind](action)
        except (Conflict, Doubt) as error:
            outcome = f"failed: {error}"
        except Exception as error:  # noqa: BLE001 - and what is logged names it
            # A hub's hook, a database: the next item is none the worse for it.
            self._log.exception("%s of %s failed", action.kind, action.name)
            outcome = f"failed: {type(error).__name__}"
        if not outcome.startswith(UNCHANGED):
            # What a look took back is no change; some looks come out so at every pass.
            self._journal.write(action, outcome)
        metrics.SESSION_ACTIONS.labels(kind=action.kind, outcome=outcome.split(":")[0]).inc()
        return Outcome(action, outcome)

    async def _session(self, action: Action) -> Session | None:
        """The session the action is about, if it is still that one."""
        session = await self._hub.session(Server(action.user, action.server))
        # A lab is called as the one before it. An operator who read a plan for a minute ended a
        # server that its user had started anew meanwhile.
        same = session is not None and (session.lab, session.namespace, session.since) == (
            action.name,
            action.namespace,
            action.since,
        )
        return session if same else None

    async def _clear_session(self, action: Action) -> str:
        session = await self._session(action)
        if session is None:
            return f"{UNCHANGED}: that session has ended"
        if self._hub.pending(session.server):
            return f"{UNCHANGED}: the hub is busy with it"
        sighting = await self._inventory.look(session)
        if sighting.presence not in (Presence.GONE, Presence.ENDED):
            return f"{UNCHANGED}: lab {sighting.presence}" + (
                f" ({sighting.why})" if sighting.why else ""
            )
        await self._hub.clear(
            session, ending(sighting.lab), ended=sighting.presence is Presence.ENDED
        )
        return DONE

    async def _stop_server(self, action: Action) -> str:
        session = await self._session(action)
        if session is None:
            return f"{UNCHANGED}: that session has ended"
        if self._hub.pending(session.server) not in ("", "check"):
            return f"{UNCHANGED}: the hub is busy with it"
        sighting = await self._inventory.look(session)
        lab = sighting.lab if sighting.presence is Presence.ALIVE else None
        if lab is None or lab.phase != "Pending":
            return f"{UNCHANGED}: the lab is not pending any more"
        await self._hub.stop(session, action.reason)
        return DONE

    async def _relink_lab(self, action: Action) -> str:
        server = Server(action.user, action.server)
        if await self._hub.session(server) is not None or self._hub.pending(server):
            return f"{UNCHANGED}: the server has a session"
        identity = LabIdentity(action.uid, action.namespace, server)
        await self._hub.relink(server, action.name, identity)
        return DONE

    async def _delete_lab(self, action: Action) -> str:
        server = Server(action.user, action.server)
        if await self._hub.session(server) is not None or self._hub.pending(server):
            return f"{UNCHANGED}: the server has a session"
        await self._inventory.delete(LabIdentity(action.uid, action.namespace, server), action.name)
        return DONE

    async def _check_routes(self, _: Action) -> str:
        await self._hub.check_routes()
        return DONE

    # -- by an operator's word

    async def _end_session(self, action: Action) -> str:
        """Whatever its lab is: it is stopped when it runs, and the session ends."""
        session = await self._session(action)
        if session is None:
            return f"{UNCHANGED}: that session has ended"
        if not session.lab:
            await self._hub.clear(session, "an administrator ended it")
            return DONE
        self._inventory.trust(session)
        sighting = await self._inventory.look(session)
        if sighting.presence is Presence.DOUBT:
            return f"failed: {sighting.why}"
        if sighting.presence in (Presence.GONE, Presence.ENDED):
            await self._hub.clear(
                session, ending(sighting.lab), ended=sighting.presence is Presence.ENDED
            )
        else:
            await self._hub.stop(session, "an administrator ended it")
        return DONE

    async def _unstick(self, action: Action) -> str:
        return await self._hub.unstick(Server(action.user, action.server))

    async def _forget_user(self, action: Action) -> str:
        await self._hub.forget_user(action.user)
        return DONE
