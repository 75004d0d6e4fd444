"""Extra volumes, wired to a KubeSpawner: settled before the pod is made, grown, and mounted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kubernetes_asyncio import client as kube
from kubespawner.objects import make_pvc
from traitlets import default

from jhub_safety import metrics
from jhub_safety import owner as marks
from jhub_safety.cluster import events
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.records import former_users
from jhub_safety.onrecord import OnRecordMixin
from jhub_safety.owner import OWNER_LABEL, Owner
from jhub_safety.plan import Action
from jhub_safety.refused import SpawnRefused
from jhub_safety.settings import from_chart
from jhub_safety.volumes import growing
from jhub_safety.volumes.declared import ExtraVolume
from jhub_safety.volumes.extra import Wanted, decide, records_differ
from jhub_safety.volumes.model import Decision, Row, Verdict
from jhub_safety.volumes.names import Place, valid_name
from jhub_safety.volumes.relation import Relation, relation

COMPONENT = "extra-pvc"
#: Claims may be made by two servers of a user at the same time.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """A volume of this server, and the claim that it is."""

    volume: ExtraVolume
    #: What its name renders to today; a hub's own ``volumes`` may say that.
    name: str
    claim: str


class ExtrasMixin(OnRecordMixin):
    """The claims beside the home."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._extras: tuple[Settled, ...] = ()
        #: This server's home as it was settled for this start.
        self._home_claim: Claim | None = None
        #: Claims that were made in this start, for what a refusal says.
        self._made: list[str] = []
        super().__init__(*args, **kwargs)

    @default("extra_pvcs")
    def _chart_values(self) -> Any:
        # Nobody wrote the chart's list for this library: a hub that only observes, or leaves homes
        # alone, makes, adopts, enlarges and refuses nothing of it, and its own hook goes on. The
        # command line goes on explaining it.
        return from_chart("custom.singleuser.extraPVCs", []) if self.homes == "enforce" else []

    # -- settling

    async def _settle_extras(self) -> bool:
        """Every declared volume has its claim, or the start is refused.

        Whether all of them carry the owner's present name.
        """
        volumes = self.extra_volumes()
        settled = []
        try:
            self._identity = await self._identity_for(volumes)
            for volume in volumes:
                try:
                    settled.append(await self._settle_extra(volume))
                except SpawnRefused as refused:
                    if not self._does_without(volume, refused):
                        raise
        except SpawnRefused as refused:
            self.log.error("%s", refused.story)  # noqa: TRY400 - the story says it all
            raise
        self._extras = tuple(one for one, _ in settled)
        return all(named for _, named in settled)

    async def _identity_for(self, volumes: Sequence[ExtraVolume]) -> str | None:
        """With homes left to KubeSpawner nobody has asked before."""
        try:
            return await self.owner_identity() if volumes else self._identity
        except LookupError as error:
            raise self._refused(
                Row.NO_IDENTITY,
                f"the login of {self.user.name} does not carry the stable id that "
                f"SafeKubeSpawner.identity_key = {self.identity_key!r} asks for ({error.args[0]})",
                f"jhub-safety claims explain {self._safety_owner().arguments}",
                retryable=True,
            ) from error

    def _does_without(self, volume: ExtraVolume, refused: SpawnRefused) -> bool:  # noqa: ARG002
        """Whether the lab starts although *volume* cannot be had: not where files are on it."""
        return False

    async def _settle_extra(self, volume: ExtraVolume) -> tuple[Settled, bool]:
        wanted = self._wanted(volume)
        fault: Conflict | Doubt | None = None
        for _ in range(_ROUNDS):
            try:
                decision = await self._decide_extra(wanted)
                if decision.verdict is Verdict.REFUSE:
                    await self._refuse_extra(decision)
                claim = await self._act_extra(wanted, decision)
            except Conflict as conflict:
                # Made or changed by another server of this user: a new question.
                fault = conflict
                continue
            except Doubt as doubt:
                fault = doubt
                break
            claim = await self._mind_the_size(wanted.given.capacity or "", claim)
            await self._mind_the_rest(wanted, claim)
            self._extra_claims[volume.name] = claim.name
            self._note_made(volume.name, claim)
            named = relation(wanted.owner, claim, volume.name) is not Relation.OTHER
            return Settled(volume, wanted.name, claim.name), named
        raise self._not_made(wanted, fault)

    def _wanted(self, volume: ExtraVolume) -> Wanted:
        owner = self._owner_of_volume(volume.name)
        name = self._expand_user_properties(volume.name)
        if not valid_name(name):
            raise self._refused(
                "name",
                f"extra_pvcs: {volume.name!r} gives {name!r} for {owner}, which is no name of a "
                "claim. Use {owner_slug}-{owner_hash}; but under a new name everybody gets a new, "
                "empty volume beside the one that they have",
                "jhub-safety claims list --component extra-pvc",
            )
        groups = [group.name for group in self.user.groups]
        return Wanted(
            volume,
            owner,
            name,
            volume.for_user(self.user.name, groups),
            self._extra_claims.get(volume.name),
            Place(self.namespace, self._namespace_default()),
            tuple(self._also_known_as(owner)[2:]),
        )

    async def _decide_extra(self, wanted: Wanted) -> Decision:
        claims = self._claims_api()
        given_up: set[str] = set()
        while names := self._names_on_record(wanted) - given_up:
            if len(names) == 1:
                (saved,) = names
                asked = replace(wanted, saved=saved)
                claim = await claims.read(saved)
                there = {} if claim is None else {saved: claim}
                decision = decide(asked, there)
                if decision.row is Row.TAKEN:
                    decision = decide(self._with_former_names(asked), there)
                if claim is not None:
                    return decision
            else:
                decision = records_differ(wanted, names)
            word = None if given_up else await self._word_on(wanted, names)
            if word is None:
                return decision
            # An operator's word: there is no such record, then.
            given_up.add(word)
            if wanted.saved == word:
                wanted = self._without_record(wanted, given_up)
        # All of this owner's, also under the names and ids they went by before.
        hashes = set(wanted.hashes)
        witness = self._home_claim
        if witness is not None and OWNER_LABEL in witness.labels:
            hashes.add(witness.labels[OWNER_LABEL])
        else:
            witness = None
        found = await claims.list(f"{OWNER_LABEL} in ({','.join(sorted(hashes))})")
        if witness is not None and witness.name not in found:
            # An empty 200: nobody's volume is made on that.
            raise Doubt(f"the listing of claims does not show {witness.name}, which is there")
        for name in wanted.names:
            claim = await claims.read(name)
            if claim is not None:
                found[name] = claim
        decision = decide(wanted, found, self._recorded_for_others(wanted, found))
        left = [
            one.name
            for one in found.values()
            if one.annotations.get(marks.VOLUME) not in (None, *self._declared_names())
        ]
        if decision.verdict is Verdict.CREATE and left:
            self.log.warning(
                "%s gets a new, empty volume %s. They also have %s, of an entry that is no longer "
                "in extra_pvcs",
                wanted.owner,
                wanted.name,
                ", ".join(left),
            )
        return decision

    def _is_extra(self, claim: str) -> bool:
        """True for the name of a claim that is made when extra volumes are settled."""
        return claim in map(self._expand_user_properties, self._declared_names())

    def _declared_names(self) -> tuple[str, ...]:
        return tuple(volume.name for volume in self.extra_volumes())

    def _also_known_as(self, owner: Owner) -> list[Owner]:
        by_name = replace(owner, identity=None)
        former = former_users(self.orm_spawner.state)
        return [owner, by_name, *(replace(by_name, user=name) for name in former)]

    async def _act_extra(self, wanted: Wanted, decision: Decision) -> Claim:
        claim = decision.claim
        annotations = {
            **wanted.owner.annotations(decision.generation or "extra"),
            marks.VOLUME: wanted.volume.name,
        }
        action = Action(
            "create-claim" if claim is None else "annotate-claim",
            self.namespace,
            decision.name,
            f"{decision.row}: {decision.why}",
            uid=claim.uid if claim else "",
            annotations=annotations,
            labels=wanted.owner.labels(),
        )
        if claim is None:
            made = await self._claims_api().create(self._manifest(wanted, action))
            self._journal().write(action, "done", created_uid=made.uid)
            self._made.append(made.name)
            return made
        if decision.verdict is Verdict.MOUNT or not self.annotate_homes:
            return claim
        try:
            changed = await self._claims_api().annotate(claim, annotations, action.labels)
        except Doubt as doubt:
            self._cannot_annotate(doubt)
            return claim
        self._journal().write(action, "done")
        return changed

    def _manifest(self, wanted: Wanted, action: Action) -> kube.V1PersistentVolumeClaim:
        labels = {**self._build_common_labels({}), **wanted.volume.labels}
        annotations = {**self._build_common_annotations({}), **wanted.volume.annotations}
        return make_pvc(
            name=action.name,
            storage_class=wanted.given.storage_class,
            access_modes=list(wanted.volume.access_modes),
            selector={},
            storage=wanted.given.capacity,
            labels={**labels, "component": COMPONENT, **action.labels},
            annotations={**annotations, **action.annotations},
        )

    # -- size and the rest

    async def _mind_the_size(self, capacity: str, claim: Claim) -> Claim:
        """Enlarge a claim that is smaller than configured. What fails is told, and no more."""
        growth = growing.compare(claim, capacity, limit=self.max_growth)
        if growth.size is growing.Size.GROW:
            action = Action("resize-claim", self.namespace, claim.name, growth.why, uid=claim.uid)
            try:
                changed = await self._claims_api().resize(claim, capacity)
            except (Conflict, Doubt) as error:
                metrics.RESIZES.labels("failed").inc()
                self._journal().write(action, f"failed: {error}")
                told = growing.refusal(error, self.namespace, claim.name)
                await self._tell(claim, f"{growth.why}; {told.story('not enlarged')}", told.command)
                return claim
            metrics.RESIZES.labels("asked").inc()
            self._journal().write(action, "done")
            return changed
        if growth.why:
            await self._tell(claim, growth.why)
        for story in growing.conditions(claim):
            await self._tell(claim, story, f"kubectl -n {self.namespace} describe pvc {claim.name}")
        return claim

    async def _mind_the_rest(self, wanted: Wanted, claim: Claim) -> None:
        stories = growing.differences(claim, wanted.given.storage_class, wanted.volume.access_modes)
        if stories and self.extra_pvc_mismatch == "refuse":
            raise self._refused(
                "mismatch",
                f"{'; '.join(stories)}. Put the entry of extra_pvcs back, or set "
                'SafeKubeSpawner.extra_pvc_mismatch = "warn"',
                f"kubectl -n {self.namespace} describe pvc {claim.name}",
            )
        for story in stories:
            await self._tell(claim, story)

    async def _tell(self, claim: Claim, story: str, command: str = "") -> None:
        """Once for each claim and story: it is the same at every start."""
        key = f"{claim.uid}: {story}"
        if key in self._said:
            return
        self._said.add(key)
        story = f"{story}. The server of {self._log_name} starts all the same."
        story += f" Run: {command}" if command else ""
        self.log.warning("%s", story)
        try:
            await events.warn_about_claim(
                self.api, self.namespace, claim.name, claim.uid, "VolumeNotAsConfigured", story
            )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)

    # -- refusing

    async def _refuse_extra(self, decision: Decision) -> None:
        claim = next((one for one in decision.claims if one.name == decision.name), None)
        story = f"{decision.why}. Run: jhub-safety {decision.command}"
        try:
            await events.warn_about_claim(
                self.api,
                self.namespace,
                decision.name,
                claim.uid if claim else "",
                "VolumeRefused",
                story,
            )
        except (Conflict, Doubt) as doubt:
            self._say_once("events", "Refusals are in this log only, not in events: %s", doubt)
        raise self._refused(decision.row, decision.why, f"jhub-safety {decision.command}")

    def _not_made(self, wanted: Wanted, fault: Conflict | Doubt | None) -> SpawnRefused:
        """Three rounds or one answer of the API server came to nothing."""
        what = f"volume {wanted.volume.name} of {wanted.owner}: "
        explain = f"jhub-safety claims explain {wanted.owner.arguments}"
        if isinstance(fault, Doubt):
            told = growing.refusal(fault, self.namespace, wanted.name)
            if told.why and not told.passes:
                why = f"{what}{told.story('not made')}. That does not pass by itself"
                return self._refused(Row.INCOMPLETE, why, told.command)
        return self._refused(Row.INCOMPLETE, f"{what}{fault}", explain, retryable=True)

    def _refused(
        self, code: str, why: str, command: str, *, retryable: bool = False
    ) -> SpawnRefused:
        story = (
            f"Server of {self._log_name} not started: {why}. {self._what_was_done()} "
            f"{'Try again; if it stays, run' if retryable else 'Run'}: {command}"
        )
        return SpawnRefused(
            code,
            story,
            "Your server was not started, to keep your files safe: one of your volumes could not "
            "be mounted. Nothing was lost. If this stays, please tell the people who run this hub.",
            retryable=retryable,
        )

    def _what_was_done(self) -> str:
        if not self._made:
            return "Nothing was created or deleted."
        return f"Nothing was deleted; made in this start, and kept: {', '.join(self._made)}."

    # -- mounting

    async def get_pod_manifest(self) -> kube.V1Pod:
        """KubeSpawner's, with the extra volumes; nothing of the hub's own is replaced."""
        pod = await super().get_pod_manifest()
        claims = {one.name: one.claim for one in self._extras}
        for volume in pod.spec.volumes or []:
            _follow(volume, claims)
        for number, one in enumerate(self._extras):
            if one.volume.mount_path:
                self._mount(pod, f"jhub-safety-extra-{number}", one)
        return pod

    def _mount(self, pod: kube.V1Pod, name: str, one: Settled) -> None:
        source = kube.V1PersistentVolumeClaimVolumeSource(claim_name=one.claim)
        pod.spec.volumes = [
            *(pod.spec.volumes or []),
            kube.V1Volume(name=name, persistent_volume_claim=source),
        ]
        mount = kube.V1VolumeMount(
            name=name,
            mount_path=one.volume.mount_path,
            sub_path=self._expand_user_properties(one.volume.sub_path) or None,
            read_only=one.volume.read_only or None,
        )
        notebook = next(one for one in pod.spec.containers if one.name == "notebook")
        notebook.volume_mounts = [*(notebook.volume_mounts or []), mount]


def _follow(volume: Any, claims: Mapping[str, str]) -> None:
    """A volume of the hub's own that names an extra claim: an adopted one has another name."""
    # KubeSpawner makes a model of the volume, and leaves what is in it as it was configured.
    source = volume.persistent_volume_claim
    if isinstance(source, dict) and source.get("claimName") in claims:
        volume.persistent_volume_claim = {**source, "claimName": claims[source["claimName"]]}
