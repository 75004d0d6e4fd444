"""What an operator asks of sessions: look, compare now, delete, unstick. Plan first, then act."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jhub_safety.errors import Doubt
from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.sessions.act import Outcome
from jhub_safety.sessions.model import Finding, Observation, Server, Verdict
from jhub_safety.sessions.reconciler import SessionReconciler


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was found, and the plan that an operator is asked about."""

    findings: tuple[Finding, ...]
    counts: Mapping[Verdict, int]
    plan: Plan
    #: Whether a hub runs; without one nothing is known of what is pending and of routes.
    hub_runs: bool
    #: Why the hub's own passes change nothing just now.
    dry: str = ""

    def record(self) -> dict[str, Any]:
        """JSON-ready; holds no secret."""
        return {
            "findings": [one.record() for one in self.findings],
            "counts": {str(verdict): n for verdict, n in self.counts.items()},
            "plan": self.plan.record(),
            "hub_runs": self.hub_runs,
            "dry": self.dry,
        }


class Operations:
    """On a reconciler: the running hub's, or one on the database of a hub that is down."""

    def __init__(self, reconciler: SessionReconciler) -> None:
        self._reconciler = reconciler

    async def survey(self, user: str | None = None, server: str | None = None) -> Proposal:
        """Every server, or *user*'s, in step or not. Changes nothing, and counts no sighting.

        Raises:
            Doubt: one of the records could not be read whole.
        """
        return await self._propose(lambda *_: Plan("look"), user, server)

    async def reconcile(self, *, over_cap: bool = False) -> Proposal:
        """What a pass would do now; what is missing counts as seen missing.

        *over_cap*: the operator says that so many may be gone.

        Raises:
            Doubt: one of the records could not be read whole.
        """
        seen = await self._reconciler.survey(over_cap=over_cap)
        judgement = await self._reconciler.judge(seen)
        return Proposal(
            judgement.findings,
            judgement.counts,
            replace(judgement.plan, on_word=over_cap),
            seen.live is not None,
            await self._reconciler.why_dry(),
        )

    async def delete(self, user: str, server: str | None = None, *, forget: bool) -> Proposal:
        """End *user*'s sessions and labs (of one *server*, or of all), never their claims.

        *forget*: also remove the user's row.

        Raises:
            Doubt: one of the records could not be read whole.
        """

        def plan(findings: Collection[Finding], seen: Observation) -> Plan:
            return plan_deletion(findings, seen, user, forget=forget)

        return await self._propose(plan, user, server)

    async def unstick(self, user: str, server: str | None = None) -> Proposal:
        """End what the hub is doing about *user*'s servers; also while no lab can be asked for.

        Raises:
            Doubt: the hub's own records could not be read.
        """
        try:
            return await self._propose(
                lambda findings, _: plan_unstick(findings, user), user, server
            )
        except Doubt as doubt:
            # What hangs may hang because of that very doubt.
            why = str(doubt)
            sessions, live = await self._reconciler.believed()
        by_server = {one.server: one for one in sessions}
        findings = tuple(
            Finding(Verdict.DOUBT, key, why, by_server.get(key), live=one)
            for key, one in (live or {}).items()
            if key.user == user and server in (None, key.name)
        )
        counts = {Verdict.DOUBT: len(findings)}
        dry = await self._reconciler.why_dry()
        return Proposal(findings, counts, plan_unstick(findings, user), live is not None, dry)

    async def _propose(
        self,
        plan: Callable[[Collection[Finding], Observation], Plan],
        user: str | None,
        server: str | None,
    ) -> Proposal:
        seen = await self._reconciler.survey(count=False)
        judgement = await self._reconciler.judge(seen, everything=True)
        findings = tuple(
            one for one in judgement.findings if user is None or _is_about(one, user, server)
        )
        return Proposal(
            findings,
            judgement.counts,
            plan(findings, seen),
            seen.live is not None,
            await self._reconciler.why_dry(),
        )

    async def execute(self, plan: Plan) -> tuple[Outcome, ...]:
        """Carry out a plan that was shown."""
        return await self._reconciler.execute(plan)


def _is_about(finding: Finding, user: str, server: str | None) -> bool:
    return (
        finding.server is not None
        and finding.server.user == user
        and server in (None, finding.server.name)
    )


def plan_deletion(
    findings: Collection[Finding], seen: Observation, user: str, *, forget: bool
) -> Plan:
    """Sessions first, the hub's own way; then labs that no session names; then what is left.

    Labs of another hub are never among it.
    """
    actions: list[Action] = []
    for one in findings:
        server = one.server
        if server is None or one.verdict is Verdict.FOREIGN:
            continue
        if one.live is not None and one.live.pending:
            actions.append(_unstick(server, one))
        if one.session is not None:
            actions.append(
                Action(
                    "end-session",
                    one.session.namespace,
                    one.session.lab,
                    one.why or "as asked",
                    user=server.user,
                    server=server.name,
                    since=one.session.since,
                )
            )
        elif one.lab is not None and one.identity is not None:
            actions.append(
                Action(
                    "delete-lab",
                    one.identity.namespace,
                    one.lab.name,
                    one.why,
                    uid=one.identity.uid,
                    user=server.user,
                    server=server.name,
                )
            )
    if seen.routes is not None and any(one.route is not None for one in findings):
        actions.append(Action("check-routes", "", "proxy", f"no route to {user} is to be left"))
    if forget:
        actions.append(Action("forget-user", "", user, "as asked", user=user))
    return Plan(f"delete sessions of {user}", tuple(actions))


def plan_unstick(findings: Collection[Finding], user: str) -> Plan:
    """Only what is pending in the hub's memory can be stuck there."""
    stuck = [one for one in findings if one.live is not None and one.live.pending]
    actions = tuple(_unstick(one.server, one) for one in stuck if one.server is not None)
    refusals: tuple[Refusal, ...] = ()
    if not actions:
        refusals = (Refusal("not-pending", user, "the hub is not busy with any server of theirs"),)
    return Plan(f"unstick {user}", actions, refusals)


def _unstick(server: Server, finding: Finding) -> Action:
    pending = finding.live.pending if finding.live else ""
    return Action(
        "unstick",
        finding.session.namespace if finding.session else "",
        finding.session.lab if finding.session else "",
        f"pending {pending}",
        user=server.user,
        server=server.name,
    )
