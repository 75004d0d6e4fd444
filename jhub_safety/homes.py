"""A home for each spawn: what :mod:`jhub_safety.volumes` decides, wired to a KubeSpawner.

Apart from :mod:`jhub_safety.spawner`, which says when: here is with what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from kubespawner import KubeSpawner
from sqlalchemy.orm import object_session
from traitlets import DefaultHandler, default

from jhub_safety.cluster import events, landmark
from jhub_safety.cluster.claims import ClaimsApi
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.givenup import GivenUpMixin
from jhub_safety.hubdb.records import former_users, same_home, servers_naming
from jhub_safety.journal import Journal
from jhub_safety.metrics import HOMES
from jhub_safety.owner import Owner, find_identity
from jhub_safety.refused import SpawnRefused
from jhub_safety.settings import effective
from jhub_safety.volumes.listing import SharedListing
from jhub_safety.volumes.model import Decision, Question, Row, Verdict
from jhub_safety.volumes.names import OWN_TEMPLATE, Generation, Place, spare_names, valid_name
from jhub_safety.volumes.resolve import Resolver


def inherited_default(cls: type, name: str, spawner: Any = None) -> tuple[Any, bool]:
    """What trait *name* of *cls* would default to without this library, and whether the hub's
    own spawner class says so.

    A class says so with a trait of its own or with ``@default``; the latter is asked with
    *spawner* (without one the answer is KubeSpawner's). Our own ``@default`` comes first in the
    order of classes, and traitlets asks only the first.
    """
    for parent in cls.__mro__:
        if parent is KubeSpawner:
            break
        if not issubclass(HomesMixin, parent) and parent.__module__ != "jhub_safety.spawner":
            for value in vars(parent).values():
                if isinstance(value, DefaultHandler) and value.trait_name == name and spawner:
                    return value.__get__(spawner, cls)(), True
    trait = cls.class_traits()[name]  # type: ignore[attr-defined]
    return trait.default_value, trait.this_class is not KubeSpawner


def default_template(cls: type, homes: str, spawner: Any = None) -> str:
    """What names new claims when no configuration says it."""
    value, by_hub = inherited_default(cls, "pvc_name_template", spawner)
    # In observe and off nothing may change; and a hub's own class keeps its template.
    return str(value) if by_hub or homes != "enforce" else OWN_TEMPLATE


class HomesMixin(GivenUpMixin):
    """Who the owner is, what their claim may be called, and what becomes of a decision."""

    pvc_name: str
    #: One listing for all spawns of one loop and namespace.
    _listings: ClassVar[dict[tuple[int, str], SharedListing]] = {}
    #: Set by the hub package: what the running JupyterHub needs to be told of a refused spawn.
    on_refusal: ClassVar[Callable[[Any], None] | None] = None
    #: uids of the marks that this process has made or found, by namespace.
    _marks: ClassVar[dict[tuple[str, landmark.Mark], str]] = {}
    #: What has been said once in this process.
    _said: ClassVar[set[str]] = set()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._identity: str | None = None
        self._saved_place: str | None = None
        super().__init__(*args, **kwargs)
        # What the template gave, before any profile or hook may have chosen another name.
        self._rendered_pvc_name: str = self.pvc_name

    # -- defaults: they lose to whatever the hub or its own spawner class sets

    @default("pvc_name_template")
    def _own_template(self) -> str:
        return default_template(type(self), self.homes, self)

    @default("delete_pvc")
    def _keep_claims(self) -> bool:
        # KubeSpawner deletes the claim with the user or the named server, even one that was
        # adopted or is shared (kubespawner/spawner.py:595, 7.1.0).
        value, by_hub = inherited_default(type(self), "delete_pvc", self)
        return bool(value) and (by_hub or self.homes != "enforce")

    # -- who

    async def owner_identity(self) -> str | None:
        """The login provider's stable id of this user; None when the hub has configured none.

        Raises:
            LookupError: one is configured and this user's login does not carry it.
        """
        if not self.identity_key:
            return None
        auth_state = await self.user.get_auth_state()
        return find_identity(auth_state, self.identity_key)

    def _safety_owner(self, server: str | None = None) -> Owner:
        generation = Generation("configured", self._enforced_template(), "safe")
        name = (self.name or "") if server is None else server
        return Owner(
            hub=self._safety_hub(),
            user=self.user.name,
            server=name if generation.per_server else "",
            identity=self._identity,
        )

    def _safety_hub(self) -> str:
        if self.hub_name:
            return str(self.hub_name)
        # With user namespaces self.namespace is the user's, not the hub's.
        return str(self._namespace_default() if self.enable_user_namespaces else self.namespace)

    def _expand_user_properties(self, template: str, slug_scheme: str | None = None) -> str:
        """KubeSpawner's fields, and ours: owner_slug, owner_hash, user_slug, user_hash."""
        if "{owner_" in template or "{user_slug}" in template or "{user_hash}" in template:
            # Not _safety_owner: whether a home is per server says nothing about other templates.
            owner = Owner("", self.user.name, self.name or "", self._identity)
            user = owner.of_user()
            for field, value in (
                ("owner_slug", owner.slug),
                ("owner_hash", owner.hash),
                ("user_slug", user.slug),
                ("user_hash", user.hash),
            ):
                # Slugs and hashes hold no braces, so what follows formats them untouched.
                template = template.replace("{" + field + "}", value)
        return str(super()._expand_user_properties(template, slug_scheme=slug_scheme))

    # -- the question and its answer

    async def _question(self) -> Question:
        """Raises LookupError when the configured identity is missing."""
        self._identity = await self.owner_identity()
        template = self._enforced_template()
        rendered = self._expand_user_properties(template)
        # A profile or hook that set pvc_name itself has chosen; else the template counts.
        chosen = self.pvc_name if self.pvc_name != self._rendered_pvc_name else rendered
        owner, place = self._safety_owner(), Place(self.namespace, self._namespace_default())
        generation = Generation("configured", template, "safe")
        return Question(
            owner=owner,
            own_name=rendered if self._pvc_exists else chosen,
            spare_names=spare_names(generation, owner, place=place),
            saved=self.pvc_name if self._pvc_exists else None,
            place=place,
            known=self.known_generations(template, self.slug_scheme),
            declared=self.declared_generations(template, self.slug_scheme),
            per_server=generation.per_server,
            former_users=former_users(self.orm_spawner.state),
        )

    def _enforced_template(self) -> str:
        """The template of ``homes = "enforce"``, which is what ``observe`` tells about."""
        if self.homes == "enforce":
            return str(self.pvc_name_template)
        set_by_hub = effective(type(self), self.config, "pvc_name_template")
        return str(set_by_hub or default_template(type(self), "enforce", self))

    def _claims_api(self) -> ClaimsApi:
        return ClaimsApi(
            self.api,
            self.namespace,
            timeout=self.claim_request_timeout,
            patience=self.k8s_api_request_retry_timeout,
        )

    def _resolver(self) -> Resolver:
        claims = self._claims_api()
        key = (id(asyncio.get_running_loop()), self.namespace)
        if key not in self._listings:
            self._listings[key] = SharedListing(claims.list, max_age=self.claim_listing_max_age)

        def manifest(name: str) -> Any:
            before, self.pvc_name = self.pvc_name, name
            try:
                return self.get_pvc_manifest()
            finally:
                self.pvc_name = before

        async def prepare() -> None:
            if self.enable_user_namespaces:
                await self._ensure_namespace()

        def recorded(question: Question, claim: str) -> str:
            # Spawner.db is deprecated; the row knows its session.
            db = object_session(self.orm_spawner)
            for record in servers_naming(db, claim) if db is not None else ():
                if not same_home(record, self.user.name, self.name, per_server=question.per_server):
                    return str(record)
            return ""

        async def given_up(question: Question) -> bool:
            missing = () if question.saved is None else (question.saved,)
            shared = not question.per_server
            return bool(await self._given_up(question.owner, "", missing, shared=shared))

        async def lost_elsewhere(question: Question) -> str | None:
            if question.per_server:
                return None
            names = {one.claim for one in self._kept_elsewhere("")}
            lost = {name for name in names if await claims.read(name) is None}
            if lost:
                lost.discard(await self._given_up(question.owner, "", lost, shared=True) or "")
            return min(lost, default=None)

        return Resolver(
            claims=claims,
            listing=self._listings[key],
            journal=self._journal(),
            log=self.log,
            manifest=manifest,
            prepare=prepare,
            forgotten=given_up,
            recorded_for=recorded,
            lost_elsewhere=lost_elsewhere,
            landmark=partial(self._landmark_uid, landmark.HOMES),
            cannot_annotate=self._cannot_annotate,
            may_annotate=self.annotate_homes and "annotate" not in self._said,
        )

    def _journal(self) -> Journal:
        return Journal(Path(self.journal) if self.journal else None, log=self.log)

    async def _settle_home(self) -> Decision:
        try:
            question = await self._question()
        except LookupError as error:
            return self._no_identity(error)
        if not valid_name(question.own_name):
            story = (
                f"pvc_name_template {self.pvc_name_template!r} gives {question.own_name!r} for "
                f"{question.owner}, which is no name of a claim. Nothing was created or deleted. "
                "Leave SafeKubeSpawner.pvc_name_template unset for names that always fit."
            )
            self.log.error("%s", story)
            raise SpawnRefused(
                "name", story, _message("its name cannot be used for a volume"), retryable=False
            )
        decision = await self._resolver().resolve(question)
        HOMES.labels(decision.verdict, decision.row, "enforce").inc()
        if decision.verdict is not Verdict.REFUSE:
            await self._set_up(landmark.HOMES)
            self.log.info(
                "Home of %s: %s %s (%s: %s)",
                question.owner,
                decision.verdict,
                decision.name,
                decision.row,
                decision.why,
            )
        return decision

    async def _landmark_uid(self, mark: landmark.Mark) -> str | None:
        """Raises Doubt."""
        return await landmark.uid(
            self.api, self.namespace, self._safety_hub(), mark, timeout=self.claim_request_timeout
        )

    async def _set_up(self, mark: landmark.Mark) -> str | None:
        """Make the mark, once in the life of this process; its uid, None when it was not made."""
        key = (self.namespace, mark)
        if key not in self._marks:
            try:
                await landmark.set_up(self.api, self.namespace, self._safety_hub(), mark)
                uid = await self._landmark_uid(mark)
            except Doubt as doubt:
                self._say_once(mark, "%s. An empty answer cannot be told from loss.", doubt)
                return None
            if uid is None:
                return None
            self._marks[key] = uid
        return self._marks[key]

    async def _home_now(self) -> str | None:
        """The claim that is this server's home, None when it has none yet.

        Raises:
            Doubt: that is not certain.
            LookupError: the configured identity is missing.
        """
        if self._pvc_exists:
            return self.pvc_name
        # State of KubeSpawner 6 names no claim.
        _, decision = await self._resolver().look(await self._question())
        if decision.verdict is Verdict.REFUSE:
            raise Doubt(decision.why)
        return None if decision.verdict is Verdict.CREATE else decision.name

    async def _report_home(self) -> None:
        """Observe-only: say what would be done. Whatever goes wrong here stops nobody."""
        try:
            question = await self._question()
            _, decision = await self._resolver().look(question)
        except Exception as error:  # noqa: BLE001 - nothing observed may fail a spawn
            self.log.warning("Home of %s could not be observed: %s", self.user.name, error)
            return
        HOMES.labels(decision.verdict, decision.row, "observe").inc()
        self.log.info(
            "Home of %s (observe only): would %s %s (%s: %s)",
            question.owner,
            decision.verdict,
            decision.name,
            decision.row,
            decision.why,
        )

    def _no_identity(self, error: LookupError) -> Decision:
        HOMES.labels(Verdict.REFUSE, Row.NO_IDENTITY, "enforce").inc()
        return Decision(
            Row.NO_IDENTITY,
            Verdict.REFUSE,
            self.pvc_name,
            f"the login of {self.user.name} does not carry the stable id that "
            f"SafeKubeSpawner.identity_key = {self.identity_key!r} asks for ({error.args[0]})",
            command="claims explain " + self._safety_owner().arguments,
            retryable=True,
        )

    async def _refuse(self, decision: Decision) -> None:
        story = (
            f"Server of {self._safety_owner()} not started: {decision.why}. Nothing was created or "
            f"deleted. "
            + ("Try again; if it stays, run: " if decision.retryable else "Run: ")
            + f"jhub-safety {decision.command}"
        )
        # JupyterHub 6 prints no traceback for this exception, and nothing else of the story.
        self.log.error("%s", story)
        uid = next((claim.uid for claim in decision.claims if claim.name == decision.name), "")
        try:
            await events.warn_about_claim(
                self.api, self.namespace, decision.name, uid, "HomeRefused", story
            )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)
        text = _message(_REASONS.get(decision.row, "it is not certain which volume is yours"))
        raise SpawnRefused(decision.row, story, text, retryable=decision.retryable)

    def _cannot_annotate(self, doubt: Doubt) -> None:
        self._say_once(
            "annotate",
            "Homes are found but not annotated: %s. To let the hub write owners on claims apply "
            "examples/helm/rbac.yaml; to silence this set SafeKubeSpawner.annotate_homes = False.",
            doubt,
        )

    def _say_once(self, key: str, message: str, *args: Any) -> None:
        if key not in self._said:
            self._said.add(key)
            self.log.warning(message, *args)


#: For the user's page; the operators' story is in the log and the event.
_REASONS = {
    Row.NO_IDENTITY: "your login does not say who you are. Log out, log in and try once more",
    Row.INCOMPLETE: "it could not be looked up just now. Try again in a moment",
    Row.GONE: "the volume that holds your files was not found",
    Row.TERMINATING: "the volume that holds your files is about to be removed",
    Row.LOST: "the volume that holds your files is not in order",
}


def _message(why: str) -> str:
    return (
        f"Your server was not started, to keep your files safe: your home was not mounted because "
        f"{why}. Nothing was lost or changed. If this stays, please tell the people who run "
        "this hub."
    )
