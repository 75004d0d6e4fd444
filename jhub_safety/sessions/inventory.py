"""Where labs are asked for: a cluster, or whatever stands between the hub and it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

from traitlets.config import LoggingConfigurable

from jhub_safety.sessions.absence import Absences
from jhub_safety.sessions.model import Lab, LabIdentity, Listing, Session
from jhub_safety.sessions.presence import Sighting


class Inventory(LoggingConfigurable):  # type: ignore[misc]
    """A complete, fresh list of the labs that exist, and a close look at one.

    A subclass is named by ``SessionReconciler.inventory_class``; the hub makes it with
    ``absences`` (what is missing, as all parts of the hub count it), ``config`` and ``log``. Each
    of these methods answers wholly or raises :class:`~jhub_safety.errors.Doubt`.
    """

    #: Whether :meth:`take` goes by the sessions it is given; otherwise both are read at once.
    needs_sessions = True

    def __init__(self, *, absences: Absences | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        #: What is missing, as all parts of the hub count it.
        self._absences = absences or Absences()

    @abstractmethod
    def lab_of(self, user: str, server: str, state: Mapping[str, Any]) -> tuple[str, str] | None:
        """How this inventory calls a server's lab: name and namespace ("" where there is none).

        *state*: what the server's spawner saved. None: the record does not tell; such a session
        is never touched.
        """

    @abstractmethod
    async def take(self, sessions: Collection[Session]) -> Listing:
        """All labs, as they are now.

        *sessions*: what the hub believes in, for an inventory that can only ask for one at a
        time. A session whose lab is not in the listing counts as missing once.

        Raises:
            Doubt: the answer was not whole; nothing follows from it.
        """

    @abstractmethod
    async def look(self, session: Session) -> Sighting:
        """One live look at a session's lab, just before its session is touched.

        Never raises Doubt: that is a presence of its own. ``GONE`` only on a positive answer
        about this very lab, in the place where it was started.
        """

    async def identify(self, labs: Collection[Lab]) -> Mapping[tuple[str, str], LabIdentity]:  # noqa: ARG002 - for subclasses
        """Whose labs these are that no session names, by (namespace, name) of the lab.

        Labs that could not be read are left out; an inventory that knows no owners says nothing.
        """
        return {}

    def trust(self, session: Session) -> None:
        """An operator says that this lab may be gone: the next positive word of it is enough."""

    async def delete(self, identity: LabIdentity, name: str) -> None:
        """Delete exactly this lab, and return when it is gone. Its being gone is success.

        Raises:
            Conflict: the name belongs to another lab now, or it does not go.
            Doubt: it was not deleted, as far as is known.
        """
        raise NotImplementedError(f"{type(self).__name__} does not delete labs")

    async def close(self) -> None:
        """Give up connections."""
