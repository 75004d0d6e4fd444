"""What the three records of each server say together, and what is to be done.

Pure; reads like the runbook it replaces. For a session, from top to bottom:

==========================================  =================  ===================================
seen                                        verdict            done
==========================================  =================  ===================================
the record names no lab, or several exist   doubt              nothing
no lab, the hub is busy with the server     busy               nothing: the hub itself finds out
no lab                                      stale              cleared when due (absence.py)
lab is being deleted                        terminating        waited for
lab failed, evicted or completed            ended              cleared, its user told why
node of the lab does not report             node lost          nothing
lab pending for longer than the limit       pending too long   stopped, cleanly
hub busy with it for longer than the limit  pending too long   reported
hub busy with it, or lab pending            busy               waited for
lab runs, does not answer or is not ready   unreachable        reported
lab runs, the proxy has no route            route missing      the hub's own check of routes
lab runs, the route leads elsewhere         route dead         the hub's own check of routes
otherwise                                   in step            nothing
==========================================  =================  ===================================

Labs that no session names, and routes without a session, follow below.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterator

from jhub_safety.plan import Action, Plan, Refusal
from jhub_safety.sessions.model import (
    Finding,
    Judgement,
    Lab,
    LabIdentity,
    LabState,
    Live,
    Observation,
    Rules,
    Server,
    Session,
    Verdict,
)

_IDLE = Live(ready=True)


def decide(seen: Observation, rules: Rules, hub: str, *, everything: bool = False) -> Judgement:
    """Judge every server of an observation.

    *hub*: value of this hub's label. *everything*: also list what is in step.
    """
    counts: Counter[Verdict] = Counter()
    findings: list[Finding] = []
    rest = seen.sessions if everything else _odd_ones(seen)
    findings.extend(_of_session(session, seen, rules) for session in rest)
    counts[Verdict.IN_STEP] = len(seen.sessions) - len(rest)
    findings.extend(_of_labs(seen, hub))
    findings.extend(_of_routes(seen))
    findings.extend(_of_memory(seen, findings))
    counts.update(finding.verdict for finding in findings)
    return Judgement(dict(+counts), tuple(findings), _plan(findings, seen, rules))


# -- sessions


def _odd_ones(seen: Observation) -> list[Session]:
    """Sessions that are not in step at first sight.

    Of 10,000 sessions nearly all are, and it is for these that a pass has no time.
    """
    labs_of, live_of, route_of = seen.listing.labs.get, None, None
    if seen.live is not None:
        live_of = seen.live.get
        route_of = None if seen.routes is None else seen.routes.get
    odd = []
    for session in seen.sessions:
        server, address = session.server, session.address
        labs = labs_of(session.lab)
        if labs is not None and len(labs) == 1:
            lab = labs[0]
            live = _IDLE if live_of is None else live_of(server)
            if (
                lab.state is LabState.RUNNING
                and lab.ready
                and live is not None
                and live.ready
                and not live.pending
                and (address.rpartition(":")[0] == lab.ip or _same_address(session, lab))
                and (
                    route_of is None
                    or (route := route_of(server)) == "http://" + address
                    or _leads_to(route, session)
                )
            ):
                continue
        odd.append(session)
    return odd


def _of_session(session: Session, seen: Observation, rules: Rules) -> Finding:
    server = session.server
    live = _IDLE if seen.live is None else seen.live.get(server, Live())
    labs = seen.listing.labs.get(session.lab, ())
    lab = labs[0] if len(labs) == 1 else None
    route = None if seen.routes is None else seen.routes.get(server)
    verdict, why = _judge(session, labs, live, route, seen, rules)
    return Finding(verdict, server, why, session, lab, None, live, route)


def _judge(
    session: Session,
    labs: tuple[Lab, ...],
    live: Live,
    route: str | None,
    seen: Observation,
    rules: Rules,
) -> tuple[Verdict, str]:
    busy = f"the hub is busy with it ({live.pending})" if live.pending else ""
    if not session.lab:
        return (Verdict.BUSY, busy) if busy else (Verdict.DOUBT, "the record names no lab")
    if len(labs) > 1:
        return Verdict.DOUBT, f"{len(labs)} namespaces have a lab {session.lab}"
    if not labs:
        if busy:
            return Verdict.BUSY, f"no lab; {busy}"
        return Verdict.STALE, f"the hub's record names lab {session.lab}, which is not there"
    (lab,) = labs
    if lab.state is LabState.TERMINATING:
        return Verdict.TERMINATING, f"lab {lab.name} is being deleted"
    if lab.state is LabState.ENDED:
        return Verdict.ENDED, f"lab {lab.name} has ended: {lab.words}"
    if lab.state is LabState.LOST:
        return Verdict.NODE_LOST, f"node {lab.node or '?'} of lab {lab.name} does not report"
    if lab.state is LabState.PENDING or live.pending in ("spawn", "stop", "rename"):
        story = "; ".join(filter(None, (f"lab {lab.name} is {lab.words}", busy)))
        waited = seen.pending_for.get(session.server, 0.0)
        if 0 < rules.pending_limit < waited:
            return Verdict.PENDING_TOO_LONG, f"{story}, for {waited / 60:.0f} min"
        return Verdict.BUSY, story
    return _judge_running(session, lab, live, route, seen)


def _judge_running(
    session: Session, lab: Lab, live: Live, route: str | None, seen: Observation
) -> tuple[Verdict, str]:
    if live.pending == "check":
        return Verdict.UNREACHABLE, f"lab {lab.name} runs, but does not answer the hub yet"
    if not lab.ready:
        return Verdict.UNREACHABLE, f"lab {lab.name} is not ready ({lab.words})"
    if not _same_address(session, lab):
        return (
            Verdict.UNREACHABLE,
            f"the hub's record says {session.address}, lab {lab.name} is at {lab.ip}",
        )
    if not live.ready:
        return Verdict.UNREACHABLE, f"lab {lab.name} runs, but the hub does not serve it"
    if seen.routes is None or seen.live is None or _leads_to(route, session):
        return Verdict.IN_STEP, ""
    if route is None:
        return Verdict.ROUTE_MISSING, "the proxy has no route to it"
    return Verdict.ROUTE_DEAD, f"the proxy's route leads to {route}, not {session.address}"


def _leads_to(route: str | None, session: Session) -> bool:
    return route is not None and route.rpartition("//")[2].rstrip("/") == session.address


def _same_address(session: Session, lab: Lab) -> bool:
    """False only when both are IP addresses, and not the same. A service has a name."""
    host = session.address.rpartition(":")[0]
    if not lab.ip or not host or host == lab.ip:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")) == ipaddress.ip_address(lab.ip)
    except ValueError:
        return True


# -- labs that no session names


def _of_labs(seen: Observation, hub: str) -> Iterator[Finding]:
    named = {session.lab for session in seen.sessions}
    running = {one.server for one in seen.sessions if one.lab in seen.listing.labs}
    by_name: defaultdict[str, list[LabIdentity]] = defaultdict(list)
    owned: Counter[Server] = Counter()
    for (_, name), identity in seen.identities.items():
        by_name[name].append(identity)
        ours = identity.hub in (None, hub)
        if identity.server is not None and ours and _alive(seen, name):
            owned[identity.server] += 1
    for name, labs in seen.listing.labs.items():
        if name in named:
            continue
        if not len(by_name[name]) == len(labs) == 1:
            yield Finding(Verdict.DOUBT, None, f"whose lab {name} is, is not known", lab=labs[0])
            continue
        yield _of_lab(labs[0], by_name[name][0], seen, hub, running, owned)


def _alive(seen: Observation, name: str) -> bool:
    return any(lab.alive for lab in seen.listing.labs.get(name, ()))


def _of_lab(
    lab: Lab,
    identity: LabIdentity,
    seen: Observation,
    hub: str,
    running: set[Server],
    owned: Counter[Server],
) -> Finding:
    server = identity.server
    live = seen.live.get(server) if seen.live is not None and server is not None else None

    def found(verdict: Verdict, why: str) -> Finding:
        return Finding(verdict, server, why, lab=lab, identity=identity, live=live)

    if server is None:
        return found(Verdict.FOREIGN, f"lab {lab.name} names no user")
    if identity.hub not in (None, hub):
        return found(Verdict.FOREIGN, f"lab {lab.name} is hub {identity.hub}'s")
    # A session that was made after the rows were read is ready already.
    if live is not None and (live.pending or (live.ready and server not in running)):
        return found(Verdict.BUSY, f"lab {lab.name}: the hub is busy with {server}")
    if lab.state is LabState.TERMINATING:
        return found(Verdict.TERMINATING, f"lab {lab.name} is being deleted")
    if lab.state is LabState.ENDED:
        return found(Verdict.ENDED, f"lab {lab.name} has ended ({lab.words}); no session names it")
    if server in running:
        return found(Verdict.TWO_LABS, f"lab {lab.name} runs beside the lab of its session")
    if owned[server] > 1:
        return found(Verdict.TWO_LABS, f"lab {lab.name} is one of {owned[server]}; no session")
    known = seen.users is None or server.user in seen.users
    unknown = "" if known else "; the hub knows no user of that name"
    return found(Verdict.ORPHAN, f"lab {lab.name} runs, and no session names it{unknown}")


# -- routes


def _of_routes(seen: Observation) -> Iterator[Finding]:
    if seen.routes is None or seen.live is None:
        return
    for server in sorted(seen.routes.keys() - {session.server for session in seen.sessions}):
        target, live = seen.routes[server], seen.live.get(server)
        if live is None or not (live.pending or live.ready):
            yield Finding(
                Verdict.ROUTE_DEAD,
                server,
                f"the proxy has a route to {target}, and no session",
                live=live,
                route=target,
            )


# -- what only the hub's memory knows


def _of_memory(seen: Observation, findings: list[Finding]) -> Iterator[Finding]:
    """A start before its row, or a stop whose hook hangs after the row has gone."""
    pending = [(server, one) for server, one in (seen.live or {}).items() if one.pending]
    if not pending:
        return
    told = {session.server for session in seen.sessions} | {one.server for one in findings}
    for server, live in pending:
        if server not in told:
            why = f"the hub is busy with it ({live.pending}); it has no session"
            yield Finding(Verdict.BUSY, server, why, live=live)


# -- the plan


def _plan(findings: list[Finding], seen: Observation, rules: Rules) -> Plan:
    actions: list[Action] = []
    refusals: list[Refusal] = []
    deletions = rules.deletions
    for finding in findings:
        action = _action(finding, seen, rules)
        if action is not None and action.kind == "delete-lab":
            if not deletions:
                refusals.append(_refused("cap", finding, "enough labs were deleted in this hour"))
                continue
            deletions -= 1
        if action is not None:
            actions.append(action)
        elif finding.verdict is Verdict.STALE and not _busy(finding):
            why = "too many are missing at once" if seen.over_cap else "it must be missing twice"
            refusals.append(
                _refused("cap" if seen.over_cap else "sightings", finding, f"{why}: {finding.why}")
            )
    routes = [one for one in findings if one.verdict in (Verdict.ROUTE_MISSING, Verdict.ROUTE_DEAD)]
    if routes:
        why = f"{len(routes)} servers whose route is missing or dead"
        # After the sessions: clearing one removes its route.
        actions.append(Action("check-routes", "", "proxy", why))
    return Plan("sessions", tuple(actions), tuple(refusals))


def _action(finding: Finding, seen: Observation, rules: Rules) -> Action | None:
    if finding.session is not None:
        return _about_session(finding, finding.session, seen)
    lab, identity = finding.lab, finding.identity
    if finding.verdict is not Verdict.ORPHAN or lab is None or identity is None:
        return None
    seconds = seen.orphan_for.get((identity.namespace, lab.name, identity.uid), 0.0)
    owner = identity.server.user if identity.server else ""
    relink = (
        rules.orphans == "relink"
        and lab.state is LabState.RUNNING
        # They have not logged in since the hub's database was lost.
        and (seen.users is None or owner in seen.users)
    )
    if relink and seconds >= rules.settled:
        return _on_lab("relink-lab", finding, lab, identity)
    if rules.orphans == "delete" and seconds >= max(rules.settled, rules.orphan_age):
        return _on_lab("delete-lab", finding, lab, identity)
    return None


def _about_session(finding: Finding, session: Session, seen: Observation) -> Action | None:
    due = finding.verdict is Verdict.STALE and session.server in seen.due
    if (due or finding.verdict is Verdict.ENDED) and not _busy(finding):
        return _on_session("clear-session", finding, session)
    # A spawn has its own limit (start_timeout), and a stop goes on until the lab is gone.
    unattended = not _busy(finding) or (
        finding.live is not None and finding.live.pending == "check"
    )
    waits = finding.lab is not None and finding.lab.state is LabState.PENDING
    if finding.verdict is Verdict.PENDING_TOO_LONG and waits and unattended:
        return _on_session("stop-server", finding, session)
    return None


def _busy(finding: Finding) -> bool:
    return finding.live is not None and bool(finding.live.pending)


def _on_session(kind: str, finding: Finding, session: Session) -> Action:
    return Action(
        kind,  # type: ignore[arg-type]
        session.namespace,
        session.lab,
        finding.why,
        user=session.server.user,
        server=session.server.name,
        since=session.since,
    )


def _on_lab(kind: str, finding: Finding, lab: Lab, identity: LabIdentity) -> Action:
    return Action(
        kind,  # type: ignore[arg-type]
        identity.namespace,
        lab.name,
        finding.why,
        uid=identity.uid,
        user=identity.server.user if identity.server else "",
        server=identity.server.name if identity.server else "",
    )


def _refused(code: str, finding: Finding, why: str) -> Refusal:
    who = str(finding.server) if finding.server else ""
    return Refusal(code, who, why, command="jhub-safety sessions list", retryable=True)
