"""The inventory of a Nublado controller, which stands between the hub and the cluster.

Its record of a lab is what is asked, not the cluster. Every answer that is not positive and
well-formed is :class:`~jhub_safety.errors.Doubt`. No error holds text of an answer: what stands
in the way of the controller may send back the request, token included.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from traitlets import Float, Int, TraitError, Unicode, validate
from yarl import URL

from jhub_safety.cluster.labs import Lab as Pod
from jhub_safety.errors import ConfigError, Conflict, Doubt
from jhub_safety.sessions.absence import LEAST, Absences
from jhub_safety.sessions.inventory import Inventory
from jhub_safety.sessions.model import Lab, LabIdentity, LabState, Listing, Server, Session
from jhub_safety.sessions.presence import Presence, Sighting, classify

#: What the controller puts before all of its routes, unless it is told otherwise.
PREFIX = "/nublado"
_LABS = f"{PREFIX}/spawner/v1/labs"
#: The controller's words for a lab. What it calls failed it deletes by itself at its next pass.
_STATES: Mapping[str, LabState] = MappingProxyType(
    {
        "pending": LabState.PENDING,
        "running": LabState.RUNNING,
        "terminating": LabState.TERMINATING,
        "terminated": LabState.ENDED,
        "failed": LabState.ENDED,
    }
)
#: Which phase of a pod each of them stands for.
_PHASES: Mapping[str, str] = MappingProxyType(
    {
        "pending": "Pending",
        "running": "Running",
        "terminating": "Running",
        "terminated": "Succeeded",
        "failed": "Failed",
    }
)
#: What of an answer may stand in an error: an identifier. No token looks like this.
_WORD = re.compile(r"[a-z_]{1,30}")
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response that was read to its end. *document* is None when it was no JSON."""

    status: int
    document: Any

    @property
    def error(self) -> str:
        """``type`` of the first error in the body, as ``unknown_user``; "" when there is none."""
        detail = self.document.get("detail") if isinstance(self.document, dict) else None
        first = detail[0] if isinstance(detail, list) and detail else None
        word = first.get("type") if isinstance(first, dict) else None
        return word if isinstance(word, str) and _WORD.fullmatch(word) else ""

    @property
    def knows_no_lab(self) -> bool:
        """The controller itself says so; a bare 404 may come from anything on the way."""
        return self.status == 404 and self.error == "unknown_user"


class NubladoInventory(Inventory):
    """Labs of a Nublado controller, by the names of their users.

    For a hub with Nublado's own spawner class. A user has one lab at most, so a session of a
    named server has none that could be asked for: it is doubtful for good, and never touched.
    """

    controller_url = Unicode(
        "",
        config=True,
        help="""
        Where the Nublado controller is asked, as ``https://data.example.org``, without the
        ``/nublado`` with which all of its paths begin. Required.

        Danger: over ``http`` the token goes over the network as it is. The controller of
        another environment knows nobody's lab; when it knows none of three or more sessions,
        none of them is taken for gone, but a smaller hub has no such protection.

        .. versionadded:: 0.1
        """,
    )

    token_file = Unicode(
        "/etc/gafaelfawr/token",
        config=True,
        help="""
        File with the bearer token by which the hub is known to the controller. Read anew for
        each request, so that a token that was replaced counts at once. The default is that of
        Nublado's spawner.

        .. versionadded:: 0.1
        """,
    )

    request_timeout = Float(
        10.0,
        min=0.1,
        config=True,
        help="""
        Seconds for one question to the controller, reading the answer included. After that the
        answer is doubtful, and nothing follows from it.

        .. versionadded:: 0.1
        """,
    )

    deletion_timeout = Float(
        300.0,
        min=0.1,
        config=True,
        help="""
        Seconds to wait for the deletion of one lab: the controller answers when it is done. The
        default is that of Nublado's spawner.

        Danger: choose more than the controller's own limit for a deletion (60 seconds unless
        it is told otherwise). With less, labs are deleted and reported as not deleted.

        .. versionadded:: 0.1
        """,
    )

    concurrency = Int(
        10,
        min=1,
        config=True,
        help="""
        Labs that are asked for at the same time. The controller lists the labs that run; every
        other session's has to be asked for by itself.

        .. versionadded:: 0.1
        """,
    )

    @validate("controller_url")
    def _usable_url(self, proposal: Any) -> Any:
        """Never shows the value: it may have been written with a password in it."""
        try:
            parts = urlsplit(proposal.value)
            usable = (
                parts.scheme in ("http", "https")
                and parts.username is None
                and not (parts.query or parts.fragment)
                and f"{PREFIX}/" not in f"{parts.path}/"
                and bool(URL(proposal.value).host)
            )
        except ValueError:
            usable = False
        if proposal.value and not usable:
            raise TraitError(
                f"{type(self).__name__}.controller_url: must be as https://data.example.org, "
                f"without {PREFIX}, user, password, query or fragment"
            )
        return proposal.value.rstrip("/")

    def __init__(
        self,
        *,
        absences: Absences | None = None,
        count: Callable[[], int] | None = None,
        **kwargs: Any,
    ) -> None:
        """*count*: how many sessions the hub has, for the cap of *absences*.

        Without it, as many as there were at the latest listing.
        """
        super().__init__(absences=absences, **kwargs)
        if not self.controller_url:
            raise ConfigError(
                f"{type(self).__name__}.controller_url is not set; "
                "it must be as https://data.example.org"
            )
        self._count = count
        #: All of the latest listing: how many sessions there were, whether any had a lab, and who
        #: has a named server.
        self._sessions = 1
        self._knows_us = True
        self._with_named: frozenset[str] = frozenset()
        self._client: aiohttp.ClientSession | None = None

    def lab_of(
        self,
        user: str,
        server: str,
        state: Mapping[str, Any],  # noqa: ARG002
    ) -> tuple[str, str] | None:
        return None if server else (user, "")

    async def take(self, sessions: Collection[Session]) -> Listing:
        askable = {session.lab for session in sessions if _why_not_to_ask(session) is None}
        labs = {user: _lab(user, "running") for user in await self._running_users()}
        for lab in await self._ask_for_each(askable - labs.keys()):
            labs[lab.name] = lab
        self._sessions = max(1, len(sessions))
        self._knows_us = len(askable) <= LEAST or not askable.isdisjoint(labs)
        self._with_named = frozenset(one.server.user for one in sessions if one.server.name)
        return Listing(MappingProxyType({user: (lab,) for user, lab in labs.items()}))

    async def look(self, session: Session) -> Sighting:
        why_not = _why_not_to_ask(session)
        if why_not is not None:
            return Sighting(Presence.DOUBT, why=why_not)
        try:
            lab = await self._read(session.lab)
        except Doubt as doubt:
            return Sighting(Presence.DOUBT, why=str(doubt))
        key = f"/{session.lab}"
        if lab is not None:
            self._absences.seen(key)
            self._knows_us = True
            pod = _pod(lab)
            return Sighting(classify(pod), pod, why=f"Nublado says {lab.words}")
        if not self._knows_us:
            return Sighting(
                Presence.DOUBT,
                why=f"Nublado knows no lab of {session.lab!r}, nor of anybody else with a session: "
                "is it the controller of another environment?",
            )
        if self._absences.missed(key, self._count() if self._count else self._sessions):
            return Sighting(Presence.GONE)
        return Sighting(
            Presence.DOUBT, why=f"Nublado knows no lab of {session.lab!r}; looking again"
        )

    async def identify(self, labs: Collection[Lab]) -> Mapping[tuple[str, str], LabIdentity]:
        """By their names, which stand for uids, too: the controller tells none, and no age.

        Nublado's spawner would have started a named server in the very same lab. So the lab of a
        user who has one may be in use, and is nobody's that could be told.
        """
        return {
            (lab.namespace, lab.name): LabIdentity(lab.name, "", Server(lab.name))
            for lab in labs
            if lab.name not in self._with_named
        }

    async def delete(self, identity: LabIdentity, name: str) -> None:
        """Delete a user's lab, and wait until the controller has done it.

        There is no uid to insist on: a lab that the user has started meanwhile is deleted too.
        """
        if identity.server != Server(name):
            raise Conflict(
                f"deleting the lab of {name!r} at Nublado: asked for as that of "
                f"{str(identity.server)!r}; nothing was deleted"
            )
        what = f"deleting the lab of {name!r} at Nublado"
        answer = await self._request("DELETE", _lab_path(name), what, self.deletion_timeout)
        if answer.status == 409:
            raise Conflict(f"{what}: something else is under way with it; nothing was deleted")
        if answer.status == 204:
            self._knows_us = True
        elif not answer.knows_no_lab:
            raise _doubt(what, answer)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _running_users(self) -> list[str]:
        """Being missing there proves nothing: only labs that run are listed."""
        what = "listing the labs that run at Nublado"
        answer = await self._request("GET", _LABS, what, self.request_timeout)
        users = answer.document
        if answer.status != 200:
            raise _doubt(what, answer)
        if not isinstance(users, list) or not all(isinstance(user, str) and user for user in users):
            raise Doubt(f"{what}: HTTP 200, but the body is no list of users", status=200)
        return users

    async def _ask_for_each(self, users: Collection[str]) -> list[Lab]:
        """Those of *users* that have a lab. The first doubt ends it: the rest proves nothing."""
        waiting = iter(sorted(users))
        found: list[Lab] = []

        async def ask() -> None:
            for user in waiting:
                lab = await self._read(user)
                if lab is not None:
                    found.append(lab)

        asking = [asyncio.create_task(ask()) for _ in range(min(self.concurrency, len(users)))]
        try:
            await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return found

    async def _read(self, user: str) -> Lab | None:
        """One user's lab; None on the controller's own word that it knows of none."""
        what = f"asking Nublado for the lab of {user!r}"
        answer = await self._request("GET", _lab_path(user), what, self.request_timeout)
        if answer.knows_no_lab:
            return None
        if answer.status != 200:
            raise _doubt(what, answer)
        if not isinstance(answer.document, dict):
            raise Doubt(f"{what}: HTTP 200, but the body is no lab", status=200)
        # A cache or a proxy that changed the path has answered for somebody else.
        owner = answer.document.get("user", {"username": user})
        if not isinstance(owner, dict) or owner.get("username") != user:
            raise Doubt(f"{what}: HTTP 200, but about another user", status=200)
        word = answer.document.get("status")
        if not isinstance(word, str) or word not in _STATES:
            shown = f" {word}" if isinstance(word, str) and _WORD.fullmatch(word) else ""
            raise Doubt(f"{what}: HTTP 200, but its status{shown} is not known", status=200)
        return _lab(user, word)

    async def _request(self, method: str, path: str, what: str, timeout: float) -> _Answer:
        """One request, without a second try: the next pass asks again.

        Raises:
            Doubt: no token, or no whole answer. Raised where no other error is being handled:
                aiohttp's own can hold the request's headers.
        """
        headers = {
            "Authorization": f"Bearer {await self._token(what)}",
            "Accept": "application/json",
        }
        # Already quoted; yarl would undo what it holds for needless.
        url = URL(self.controller_url + path, encoded=True)
        failure = ""
        try:
            async with asyncio.timeout(timeout):
                # A redirect is a login page, or another host that should not see the token.
                async with self._connection().request(
                    method, url, headers=headers, allow_redirects=False
                ) as response:
                    raw = await response.read()
        except TimeoutError:
            failure = f"no answer within {timeout:g} s"
        except OSError as error:
            # aiohttp's errors of connecting and of TLS, too; they name the host at most.
            failure = f"{type(error).__name__}: {error}"
        except aiohttp.ClientError as error:
            failure = f"{type(error).__name__}: no whole answer"
        if failure:
            raise Doubt(f"{what}: {failure}")
        return _Answer(response.status, _parse(raw))

    def _connection(self) -> aiohttp.ClientSession:
        """Made at the first request, when there is a loop. Keeps no cookies: the token says all."""
        if self._client is None:
            self._client = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._client

    async def _token(self, what: str) -> str:
        failure = ""
        try:
            raw = await asyncio.to_thread(Path(self.token_file).read_bytes)
        except (OSError, ValueError) as error:
            failure = f"{type(error).__name__} while reading it"
        else:
            # Latin-1 has a character for every byte: an error of decoding would hold the token.
            token = raw.strip().decode("latin-1")
            if _TOKEN.fullmatch(token):
                return token
            failure = "empty, or not one line of printable ASCII"
        raise Doubt(f"{what}: token file {self.token_file!r}: {failure}", retryable=False)


def _lab(user: str, word: str) -> Lab:
    state = _STATES[word]
    return Lab(name=user, state=state, words=word, ready=state is LabState.RUNNING)


def _pod(lab: Lab) -> Pod:
    """As far as the controller tells; what a look says is read the same way for every inventory."""
    return Pod(
        name=lab.name,
        namespace=lab.namespace,
        uid="",
        phase=_PHASES[lab.words],
        deleting=lab.state is LabState.TERMINATING,
        reason=lab.words,
    )


def _why_not_to_ask(session: Session) -> str | None:
    """Why the controller's answer would not be about this session; None when it would be."""
    if session.server.name:
        return f"{session.server} is a named server, and Nublado has none"
    if session.lab != session.server.user:
        return f"the record calls the lab {session.lab!r}: it was not started by Nublado"
    return None


def _lab_path(user: str) -> str:
    """The name as one segment of a path, whatever is in it.

    Raises:
        Doubt: no quoting keeps this name from changing the path.
    """
    if user in ("", ".", ".."):
        raise Doubt(f"Nublado cannot be asked for a lab of {user!r}", retryable=False)
    try:
        return f"{_LABS}/{quote(user, safe='')}"
    except UnicodeEncodeError:
        raise Doubt(f"Nublado cannot be asked for a lab of {user!r}", retryable=False) from None


def _doubt(what: str, answer: _Answer) -> Doubt:
    said = f" {answer.error}" if answer.error else ""
    hint = ", but not from the controller" if answer.status == 404 and not said else ""
    return Doubt(
        f"{what}: HTTP {answer.status}{said}{hint}",
        status=answer.status,
        retryable=not 300 <= answer.status < 404,
    )


def _parse(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
