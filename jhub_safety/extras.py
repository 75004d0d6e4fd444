"""Extra volumes, wired to a KubeSpawner: settled before the pod is made, grown, and mounted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubernetes_asyncio import client as kube
from kubespawner.objects import make_pvc

from jhub_safety import metrics
from jhub_safety import owner as marks
from jhub_safety.cluster import events, forgotten
from jhub_safety.cluster.claims import Claim
from jhub_safety.errors import Conflict, Doubt
from jhub_safety.hubdb.records import VOLUMES, former_users
from jhub_safety.owner import OWNER_LABEL, Owner
from jhub_safety.plan import Action
from jhub_safety.refused import SpawnRefused
from jhub_safety.starts import StartsMixin
from jhub_safety.volumes import growing
from jhub_safety.volumes.declared import ExtraVolume
from jhub_safety.volumes.extra import Wanted, decide
from jhub_safety.volumes.model import Decision, Row, Verdict
from jhub_safety.volumes.names import Generation, Place, valid_name
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


class ExtrasMixin(StartsMixin):
    """The claims beside the home."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._extras: tuple[Settled, ...] = ()
        self._extra_claims: dict[str, str] = {}
        #: This server's home as it was settled for this start.
        self._home_claim: Claim | None = None
        #: Claims that were made in this start, for what a refusal says.
        self._made: list[str] = []
        super().__init__(*args, **kwargs)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self._extra_claims:
            state[VOLUMES] = dict(self._extra_claims)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        found = state.get(VOLUMES)
        self._extra_claims = dict(found) if isinstance(found, dict) else {}

    # -- settling

    async def _settle_extras(self) -> bool:
        """Every declared volume has its claim, or the start is refused.

        Whether all of them carry the owner's present name.
        """
        volumes = self.extra_volumes()
        try:
            # With homes left to KubeSpawner nobody has asked before.
            self._identity = await self.owner_identity() if volumes else self._identity
        except LookupError as error:
            raise self._refused(Row.NO_IDENTITY, str(error.args[0])) from error
        settled = [await self._settle_extra(volume) for volume in volumes]
        self._extras = tuple(one for one, _ in settled)
        return all(named for _, named in settled)

    async def _settle_extra(self, volume: ExtraVolume) -> tuple[Settled, bool]:
        wanted = self._wanted(volume)
        fault = ""
        for _ in range(_ROUNDS):
            try:
                decision = await self._decide_extra(wanted)
                if decision.verdict is Verdict.REFUSE:
                    await self._refuse_extra(decision)
                claim = await self._act_extra(wanted, decision)
            except Conflict as conflict:
                # Made or changed by another server of this user: a new question.
                fault = str(conflict)
                continue
            except Doubt as doubt:
                fault = str(doubt)
                break
            claim = await self._mind_the_size(wanted.given.capacity or "", claim)
            await self._mind_the_rest(wanted, claim)
            self._extra_claims[volume.name] = claim.name
            named = relation(wanted.owner, claim, volume.name) is not Relation.OTHER
            return Settled(volume, wanted.name, claim.name), named
        raise self._refused(Row.INCOMPLETE, f"volume {volume.name} of {wanted.owner}: {fault}")

    def _wanted(self, volume: ExtraVolume) -> Wanted:
        generation = Generation(volume.name, volume.name, "safe")
        per_server = generation.per_server
        owner = replace(self._safety_owner(), server=(self.name or "") if per_server else "")
        name = self._expand_user_properties(volume.name)
        if not valid_name(name):
            raise self._refused(
                "name",
                f"extra_pvcs: {volume.name!r} gives {name!r} for {owner}, which is no name of a "
                "claim. Use {owner_slug}-{owner_hash}",
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
        if wanted.saved is not None:
            claim = await claims.read(wanted.saved)
            if claim is not None or not await self._given_up(wanted):
                return decide(wanted, {} if claim is None else {claim.name: claim})
            # An operator's word: there is no record, then.
            wanted = replace(wanted, saved=None)
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
        decision = decide(wanted, found)
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

    async def _given_up(self, wanted: Wanted) -> bool:
        """Whether an operator has recorded that the claim on record is gone for good."""
        claim = await forgotten.read(
            self.api,
            self.namespace,
            wanted.owner,
            wanted.volume.name,
            timeout=self.claim_request_timeout,
        )
        return claim == wanted.saved

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
                await self._tell(claim, f"{growth.why}; not enlarged: {error}")
                return claim
            metrics.RESIZES.labels("asked").inc()
            self._journal().write(action, "done")
            return changed
        if growth.why:
            await self._tell(claim, growth.why)
        for story in growing.conditions(claim):
            await self._tell(claim, story)
        return claim

    async def _mind_the_rest(self, wanted: Wanted, claim: Claim) -> None:
        stories = growing.differences(claim, wanted.given.storage_class, wanted.volume.access_modes)
        if stories and self.extra_pvc_mismatch == "refuse":
            raise self._refused("mismatch", "; ".join(stories))
        for story in stories:
            await self._tell(claim, story)

    async def _tell(self, claim: Claim, story: str) -> None:
        """Once for each claim and story: it is the same at every start."""
        key = f"{claim.uid}: {story}"
        if key in self._said:
            return
        self._said.add(key)
        self.log.warning("%s. The server of %s starts all the same.", story, self._log_name)
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
        raise self._refused(decision.row, decision.why, decision.command)

    def _refused(self, code: str, why: str, command: str = "") -> SpawnRefused:
        story = f"Server of {self._log_name} not started: {why}. {self._what_was_done()}"
        if command:
            story += f" Run: jhub-safety {command}"
        self.log.error("%s", story)
        if (told := type(self).on_refusal) is not None:
            told(self)
        return SpawnRefused(
            code,
            story,
            "Your server was not started, to keep your files safe: one of your volumes could not "
            "be mounted. Nothing was lost. If this stays, please tell the people who run this hub.",
            retryable=code == Row.INCOMPLETE,
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
