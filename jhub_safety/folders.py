"""Homes on one shared claim, wired to a KubeSpawner: looked for by the lab's first init container.

What is overridden of KubeSpawner 7.1:

- ``_start``: a lab whose look says "another folder" is deleted, and the start begins again.
- ``_expand_all``: where ``home_sub_path`` stands in a mount, before it is rendered.
- ``get_pod_manifest``: the init container, and the folder in those mounts.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
from dataclasses import dataclass, replace
from typing import Any

from kubernetes_asyncio import client as kube
from sqlalchemy.orm import Session, object_session

from jhub_safety.claimants import others
from jhub_safety.cluster import events, landmark
from jhub_safety.cluster.labs import Lab
from jhub_safety.cluster.notes import Note, folder_note
from jhub_safety.databases import DatabasesMixin
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb import records
from jhub_safety.hubdb.records import FOLDER
from jhub_safety.metrics import HOMES
from jhub_safety.owner import Owner
from jhub_safety.plan import Action
from jhub_safety.refused import SpawnRefused
from jhub_safety.volumes import looking
from jhub_safety.volumes.folders import (
    Decision,
    Question,
    Row,
    Seen,
    decide,
    folders,
    generations,
    valid_folder,
)
from jhub_safety.volumes.mounts import mark_mounts, resolve_mounts
from jhub_safety.volumes.names import Generation, Place

#: Key in a server's saved state: it ran before this library looked for folders.
_RAN = "jhub_safety_folder_ran"
#: On a lab: which start made it, and which folder it has mounted.
LOOK, MOUNTED = "jhub-safety/look", "jhub-safety/folder"
#: Seconds between two looks at the reflector's memory.
_PAUSE = 0.5
#: The folder was found; the second start must find it again.
_ROUNDS = 3
#: As which user the look runs when the lab's own is not known.
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Look:
    """What this start asks of the claim."""

    question: Question
    #: Tells this start's lab from one of the same name before it.
    nonce: str
    #: This hub has had homes on the claim.
    had: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The folder to be mounted first."""
        asked = self.question
        return tuple(dict.fromkeys((asked.expected, *asked.names)))


class FoldersMixin(DatabasesMixin):
    """Which folder of a shared claim is mounted as the home."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The user's folder on record; "" while it is not known.
        self._folder = ""
        self._ran_before = False
        self._look: Look | None = None
        self._mark = ""
        super().__init__(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._looks or self._folder:
            # Written while it is "", too: what is saved from now on is no proof of having run.
            state[FOLDER] = self._folder
        if self._looks and self._ran_before and not self._folder:
            # Without looks the version in the state says it as well as it did before.
            state[_RAN] = True
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        folder, version = state.get(FOLDER), str(state.get("kubespawner_version") or "")
        self._folder = folder if isinstance(folder, str) else ""
        # KubeSpawner writes its version since 7, which is what renders today's folder.
        self._ran_before = bool(state.get(_RAN)) or (
            FOLDER not in state and version.partition(".")[0].isdigit()
        )

    def _save_state(self) -> None:
        """Write the record before there is a lab.

        JupyterHub writes it when the start has returned. A hub that was killed during a user's
        first start had a session that named no lab, and nothing could ever end it.
        """
        row, state = self.orm_spawner, self.get_state()
        db = object_session(row)
        if state == row.state and not (db is not None and db.is_modified(row)):
            return  # As at the start before. A commit is 3 % of what a start costs the hub.
        row.state = state
        if db is not None:
            db.commit()

    @property
    def _looks(self) -> bool:
        return bool(self.home_sub_path) and self.homes == "enforce"

    # -- before there is a lab

    async def _settle_folder(self) -> None:
        """Know what to look for, or refuse."""
        self._look = None
        if not self._looks:
            return
        try:
            question = await self._folder_question()
            known = (self.namespace, landmark.FOLDERS) in self._marks
            had = known or await self._landmark_uid(landmark.FOLDERS) is not None
        except Doubt as doubt:
            raise self._no_folder(_incomplete(self._folder_owner(), str(doubt))) from doubt
        if not valid_folder(question.today):
            raise self._no_folder(
                Decision(
                    Row.ODD,
                    None,
                    f"home_sub_path {self.home_sub_path!r} gives {question.today!r}, which is no "
                    "path below the root of a claim",
                    command=f"homes choose FOLDER {question.owner.options}",
                )
            )
        decision = decide(question, Seen(fault="not looked yet"))
        if decision.row in (Row.CONFLICT, Row.UNPROVEN):
            raise self._no_folder(decision)
        self._look = Look(question, secrets.token_hex(8), had)

    def _folder_owner(self) -> Owner:
        # By the name, also with identity_key: that is what folders are called by.
        server = (self.name or "") if self._folder_per_server else ""
        return Owner(self._safety_hub(), self.user.name, server)

    @property
    def _folder_per_server(self) -> bool:
        return Generation("today", self.home_sub_path, "safe").per_server

    async def _folder_question(self) -> Question:
        """Raises Doubt."""
        owner, place = self._folder_owner(), Place(self.namespace, self._namespace_default())
        every = generations(self.home_sub_path, self.earlier_home_sub_paths)
        today = self._expand_user_properties(self.home_sub_path).rstrip("/")
        former = records.former_users(self.orm_spawner.state)
        names = tuple(dict.fromkeys((today, *folders(owner, every, place, former))))
        said = await self._folder_note().read() or {}
        question = Question(
            owner,
            today,
            names,
            chosen=said.get("folder"),
            may_be_new=said.get("new") == "yes" and said.get("folder") != self._folder,
            saved=frozenset({self._folder} - {""}),
            ran=self._ran_before,
        )
        if question.chosen is not None and not valid_folder(question.chosen):
            raise Doubt(f"the note {self._folder_note().name} names no folder", retryable=False)
        db = object_session(self.orm_spawner)
        if db is not None and question.chosen is not None:
            return replace(question, rivals=_on_anothers_record(db, question.chosen, owner))
        if db is None or question.saved:
            return question
        if not self._folder_per_server:
            saved = frozenset(records.folders_of(db, owner.user).values()) - {""}
            question = replace(question, saved=saved)
        rivals, guesses = others(db, question, every, place, former)
        return replace(question, rivals=rivals, guesses=guesses)

    def _folder_note(self) -> Note:
        owner = self._folder_owner()
        return folder_note(self.api, self.namespace, owner, timeout=self.claim_request_timeout)

    # -- the lab

    def _expand_all(self, src: Any) -> Any:
        """KubeSpawner's; mounts of ``home_sub_path`` get a mark that get_pod_manifest replaces.

        Before it is rendered: "_shared", or another user's name, may look the same afterwards.
        """
        if self._mark and isinstance(src, dict):
            src = mark_mounts(src, self.home_sub_path, self._mark)
        return super()._expand_all(src)

    async def get_pod_manifest(self) -> kube.V1Pod:
        look = self._look
        if look is None:
            return await super().get_pod_manifest()
        self._mark = f"jhub-safety-{look.nonce}"
        try:
            pod = await super().get_pod_manifest()
            folder, today = look.question.expected, look.question.today
            volume, why = resolve_mounts(
                pod, self._mark, folder, today, home_volume=self.home_volume
            )
            if why or self._mark in json.dumps(pod.to_dict(), default=str):
                raise self._no_folder(
                    Decision(
                        Row.ODD,
                        None,
                        why or "home_sub_path stands where it cannot be replaced",
                    )
                )
        finally:
            self._mark = ""
        uid = self.home_look_uid
        if uid is None:
            uid = self.uid if isinstance(self.uid, int) else _NOBODY
        first = looking.container(
            volume, self.home_look_image, uid, look.question.mode, look.names, had=look.had
        )
        pod.spec.init_containers = [first, *(pod.spec.init_containers or [])]
        annotations = pod.metadata.annotations or {}
        pod.metadata.annotations = {**annotations, LOOK: look.nonce, MOUNTED: folder}
        return pod

    # -- what its first init container finds

    async def _start(self) -> Any:
        for _ in range(_ROUNDS):
            starting = asyncio.ensure_future(super()._start())
            looking_on = asyncio.ensure_future(self._until_looked())
            try:
                await asyncio.wait((starting, looking_on), return_when=asyncio.FIRST_COMPLETED)
                if not looking_on.done():
                    url = starting.result()
                    await self._remember_folder()
                    return url
            finally:
                starting.cancel()
                looking_on.cancel()
                await asyncio.gather(starting, looking_on, return_exceptions=True)
            await self._look_again(*looking_on.result())
        raise self._no_folder(
            _incomplete(self._folder_owner(), "what was found changed three times")
        )

    async def _until_looked(self) -> tuple[Look, Lab]:
        """Return when this start's lab will not go on by itself; never for one that does."""
        while True:
            await asyncio.sleep(_PAUSE)
            look = self._look
            pod = self._reflected_lab() if look is not None else None
            if look is None or pod is None or not self._stands_still(pod, look):
                continue
            try:
                lab = await self._labs_api().read(self.pod_name)
            except Doubt as doubt:
                self.log.warning("%s; trying again", doubt)
                continue
            # A reflector may show the lab of the start before.
            if lab is not None and self._stands_still(lab, look):
                return look, lab

    def _reflected_lab(self) -> Lab | None:
        pods = getattr(self.pod_reflector, "pods", None) or {}
        found = pods.get(f"{self.namespace}/{self.pod_name}")
        try:
            return Lab.parse(found) if found is not None else None
        except Doubt:
            return None

    def _stands_still(self, lab: Lab, look: Look) -> bool:
        mine = self._relinked or lab.annotations.get(LOOK) == look.nonce
        return mine and _is_pending(lab) and looking.over(lab.inits.get(looking.NAME))

    async def _look_again(self, look: Look, lab: Lab) -> None:
        """Delete the lab that did not go on; the next round mounts what was found, or refuse."""
        if lab.annotations.get(LOOK) != look.nonce:
            # Left by a hub that was killed while it waited: what it looked for is not known.
            await self._delete_lab_that_waits(lab, "left of a start that was interrupted")
            return
        seen = looking.understand(lab.inits[looking.NAME], look.names)
        decision = decide(look.question, seen)
        await self._delete_lab_that_waits(lab, f"{decision.row}: {decision.why}")
        if decision.folder is None:
            refusal = self._no_folder(decision, lab)
            await self._warn(lab, refusal.story)
            raise refusal
        HOMES.labels("mount", decision.row, "enforce").inc()
        self.log.info(
            "Folder of %s: %r (%s: %s)", self._log_name, decision.folder, decision.row, decision.why
        )
        if decision.row is not Row.NEW:
            # A folder that is to be made is on record once a lab has run in it.
            self._folder = decision.folder
            self._save_state()

    async def _delete_lab_that_waits(self, lab: Lab, why: str) -> None:
        whose = {"user": self.user.name, "server": self.name or ""}
        action = Action("delete-lab", lab.namespace, lab.name, why, uid=lab.uid, **whose)
        try:
            await self._labs_api().delete(lab, grace=0)
        except (Conflict, Doubt) as error:
            self._journal().write(action, f"failed: {error}")
            # user.spawn stops what it could not start.
            raise self._no_folder(_incomplete(self._folder_owner(), str(error))) from error
        self._journal().write(action, "done")
        self._nothing_started, self._relinked = True, False
        await self._wait_until_gone(lab)

    async def poll(self) -> int | None:
        """Also 1 for a lab that waits for a hub which was killed before it heard of the look."""
        status: int | None = await super().poll()
        if status is not None or not self._looks or self._spawn_pending:
            return status
        seen = self._reflected_lab()
        if seen is None or not _waits_for_ever(seen):
            return None
        try:
            lab = await self._labs_api().read(self.pod_name)
            if lab is None or not _waits_for_ever(lab):
                return None
            await self._delete_lab_that_waits(lab, "left of a start that was interrupted")
        except (Doubt, SpawnRefused) as error:
            self.log.warning("Lab %s waits for a start that is over: %s", self.pod_name, error)
            return None
        self._lab_is_gone()
        return 1

    async def _remember_folder(self) -> None:
        """The lab runs, so the folder that it has mounted is there."""
        if not self._looks:
            return
        pod = self._reflected_lab()
        # Also of a lab that was running already, from before the hub's record was lost.
        folder = pod.annotations.get(MOUNTED, "") if pod is not None else ""
        if valid_folder(folder):
            self._folder = folder
            await self._set_up(landmark.FOLDERS)
        if self._look is not None and self._look.question.may_be_new:
            await self._was_new(folder)

    async def _was_new(self, folder: str) -> None:
        """From now on the folder that an operator allowed to be made must be there."""
        owner = self._folder_owner()
        text = {"folder": folder, "new": "no", "user": owner.user, "server": owner.server}
        try:
            await self._folder_note().write(text)
        except (Conflict, Doubt) as error:
            self.log.warning("%s. The hub's record of %s says it.", error, self._log_name)

    # -- refusing

    def _no_folder(self, decision: Decision, lab: Lab | None = None) -> SpawnRefused:
        HOMES.labels("refuse", decision.row, "enforce").inc()
        claims = f" (claim {shlex.join(lab.claims)})" if lab is not None and lab.claims else ""
        command = f"jhub-safety {decision.command}" if decision.command else self._look_at_events()
        if decision.row is Row.EMPTY:
            mark = landmark.name(self._safety_hub(), landmark.FOLDERS)
            claims += ". If all were deleted on purpose, this lets everybody begin anew"
            command = f"kubectl -n {self.namespace} delete secret {mark}"
            # Once it is deleted, this process must not go on remembering it.
            self._marks.pop((self.namespace, landmark.FOLDERS), None)
        story = (
            f"Server of {self._log_name} not started: {decision.why}{claims}. No folder was made "
            f"or changed. {'Try again; if it stays, run' if decision.retryable else 'Run'}: "
            f"{command}"
        )
        self.log.error("%s", story)
        return SpawnRefused(
            decision.row,
            story,
            "Your server was not started, to keep your files safe: it is not certain in which "
            "folder they are. Nothing was lost or changed. If this stays, please tell the people "
            "who run this hub.",
            retryable=decision.retryable,
        )

    def _look_at_events(self) -> str:
        return (
            f"kubectl -n {self.namespace} get events "
            f"--field-selector involvedObject.name={self.pod_name}"
        )

    async def _warn(self, lab: Lab, story: str) -> None:
        try:
            for claim in lab.claims[:1]:
                await events.warn_about_claim(
                    self.api, self.namespace, claim, "", "HomeRefused", story
                )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)


def _on_anothers_record(db: Session, folder: str, owner: Owner) -> dict[str, str]:
    """A server that is none of *owner*'s own and has *folder* on record, by folder."""
    per_server = bool(owner.server)
    for one in records.servers_in_folders(db, [folder]).get(folder, ()):
        if not records.same_home(one, owner.user, owner.server, per_server=per_server):
            return {folder: str(one)}
    return {}


def _waits_for_ever(lab: Lab) -> bool:
    """It has looked, and what it found is not what it would mount."""
    state = lab.inits.get(looking.NAME)
    return _is_pending(lab) and state is not None and state.exit_code not in (None, 0)


def _is_pending(lab: Lab) -> bool:
    """Nobody works in it: whatever is said of its init containers, a lab that runs is let be."""
    return lab.phase == "Pending" and not lab.deleting


def _incomplete(owner: Owner, why: str) -> Decision:
    return Decision(
        Row.INCOMPLETE,
        None,
        f"the folder of {owner} could not be looked for: {why}",
        retryable=True,
    )
