"""What was measured, the verdict over it, and how it is printed beside 2017."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

#: Seconds from the restart until everybody has their own server.
TARGET = 60.0
#: Minutes from the .save at 00:25 on, by the report of those who ran that hub:
#: https://docs.datahub.berkeley.edu/incidents/2017-02-09-datahub-db-outage.html
_NOTICED, _STOPPED, _SERVED = 47, 63, 137
_COOKIES, _DOTS, _CLEAR = 620, 650, 652


@dataclass(frozen=True)
class Timeline:
    """Seconds from the loss on. None: it did not come to that.

    restarted: the hub had ended by itself, and is started. labs_silent: how long a lab that ran
    could not be reached, at most, from the loss until everybody was there.
    """

    restarted: float | None = None
    answers: float | None = None
    labs_silent: float = 0.0
    first: float | None = None
    dots: float | None = None
    everybody: float | None = None


@dataclass(frozen=True)
class Checks:
    """How many of each. Each list names users, with what went wrong.

    users, labs, running: people, those with a real lab, those whose lab ran at the loss.
    arrived_real, arrived_played: who came to their own server.
    homes: whose start has the claim, by name and uid, that was theirs before.
    nonces: real labs that gave out what their user had written before.
    old_cookies: browsers of before the loss that are still logged in as their owner.
    """

    users: int = 0
    labs: int = 0
    running: int = 0
    arrived_real: int = 0
    arrived_played: int = 0
    homes: int = 0
    nonces: int = 0
    same_pods: int = 0
    old_cookies: int = 0
    not_arrived: list[str] = field(default_factory=list)
    other_homes: list[str] = field(default_factory=list)
    wrong_nonces: list[str] = field(default_factory=list)
    cross_logins: list[str] = field(default_factory=list)
    lost_labs: list[str] = field(default_factory=list)
    claims_made: list[str] = field(default_factory=list)
    claims_gone: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """seconds_each: median, 95 % and longest time of one person, from first page to own server.

    others: which part of this machine's cores other programs than hub and browsers used
    from the restart on, 0 to 1; the cluster's own parts are among them. hub_seconds: processor
    time of the hub alone, from its restart until everybody was there.
    """

    engine: str
    lost_by: str
    exit_code: int
    said: str
    at_once: int
    kinds: dict[str, int]
    timeline: Timeline
    checks: Checks
    seconds_each: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cores: int = 0
    others: float = 0.0
    hub_seconds: float = 0.0

    @property
    def recovery_seconds(self) -> float | None:
        """From the restart until everybody has their own server."""
        line = self.timeline
        if line.everybody is None or line.restarted is None:
            return None
        return line.everybody - line.restarted

    @property
    def promises(self) -> dict[str, bool]:
        """What must hold, however fast the machine is."""
        checks = self.checks
        return {
            "everybody logged in and got HTTP 200 from their own server": not checks.not_arrived,
            "no empty homes: each start's claim is the one of before": not checks.other_homes
            and checks.homes == checks.arrived_real + checks.arrived_played,
            "each user of a real lab reads back what they wrote": not checks.wrong_nonces
            and checks.nonces == checks.labs,
            "no cross-logins": not checks.cross_logins,
            "labs that ran are reachable, without a restart": not checks.lost_labs
            and checks.same_pods == checks.running,
            "no claim was made or lost": not checks.claims_made and not checks.claims_gone,
        }

    @property
    def passed(self) -> bool:
        return all(self.promises.values())

    @property
    def in_time(self) -> bool:
        """On whatever machine it ran; no promise."""
        return self.recovery_seconds is not None and self.recovery_seconds < TARGET

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "promises": self.promises,
            "passed": self.passed,
            "recovery_seconds": self.recovery_seconds,
            "target_seconds": TARGET,
            "in_time": self.in_time,
        }


def show(report: Report, console: Console) -> None:
    console.print(f"Lost by {report.lost_by}", highlight=False)
    console.print(_times(report))
    console.print(_counts(report))
    console.print(f"The hub said: {report.said}", markup=False, highlight=False)
    for promise, kept in report.promises.items():
        word = "[green]kept  [/green]" if kept else "[red]BROKEN[/red]"
        console.print(f"{word} {promise}", highlight=False)
    checks = report.checks
    for what, names in (
        ("did not arrive", checks.not_arrived),
        ("another home", checks.other_homes),
        ("another's or no nonce", checks.wrong_nonces),
        ("cross-login", checks.cross_logins),
        ("lab lost", checks.lost_labs),
        ("claim made", checks.claims_made),
        ("claim gone", checks.claims_gone),
    ):
        for name in names[:5]:
            console.print(f"  {what}: {name}", markup=False, highlight=False)
        if len(names) > 5:
            console.print(f"  {what}: {len(names) - 5} more", highlight=False)
    if report.recovery_seconds is not None:
        colour = "green" if report.in_time else "yellow"
        console.print(
            f"From the restart until everybody had their own server: [{colour}]"
            f"{report.recovery_seconds:.1f} s[/{colour}] (target: {TARGET:.0f} s)\n"
            f"The hub itself needed {report.hub_seconds:.1f} s of one core. Of {report.cores} "
            f"cores the cluster and other programs used {report.others:.0%} meanwhile.",
            highlight=False,
        )


def _times(report: Report) -> Table:
    line, checks = report.timeline, report.checks
    ended, answers = _seconds(line.restarted), _seconds(line.answers)
    table = Table(
        title=f"{report.engine}: time since the database was lost",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("DataHub, 9 February 2017", justify="right")
    table.add_column("today", justify="right")
    for what, then, now in (
        ("The database is replaced by an empty one", "0:00 h", "0.0 s"),
        ("Noticed: by a student with an empty home | by the hub", _hours(_NOTICED), ended),
        ("The hub is stopped | ends by itself, and is started", _hours(_STOPPED), ended),
        ("All users are back in it: by hand | by itself", _hours(_SERVED), answers),
        ("Nobody lands in another's account", _hours(_COOKIES), answers),
        ("The first one is in their own home", "-", _seconds(line.first)),
        ("All with '.' in their name are", _hours(_DOTS), _seconds(line.dots)),
        (f"All clear: all {checks.users} are", _hours(_CLEAR), _seconds(line.everybody)),
        ("Labs that ran: no answer for", "deleted, twice", _seconds(line.labs_silent)),
    ):
        table.add_row(what, then, now)
    return table


def _counts(report: Report) -> Table:
    checks = report.checks
    played = checks.users - checks.labs
    table = Table(title="Counted", title_justify="left", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    rows = [
        (
            "In their own server, real labs in the cluster",
            f"{checks.arrived_real} of {checks.labs}",
        ),
        (
            "In their own server, played (real login, start and home; no pod)",
            f"{checks.arrived_played} of {played}",
        ),
        ("The same claim as before, by name and uid", f"{checks.homes} of {checks.users}"),
        ("Empty homes", str(len(checks.other_homes))),
        ("Real labs with what their user had written", f"{checks.nonces} of {checks.labs}"),
        ("Cross-logins", str(len(checks.cross_logins))),
        ("Logins of before the loss that are still valid", str(checks.old_cookies)),
        ("Labs that ran on, the same pod", f"{checks.same_pods} of {checks.running}"),
    ]
    rows += [(f"Homes named by {kind}", str(number)) for kind, number in report.kinds.items()]
    median, most, longest = report.seconds_each
    rows.append(
        (
            f"One person, first page to own server, {report.at_once} at a time",
            f"median {median:.1f} s, 95 % {most:.1f} s, longest {longest:.1f} s",
        )
    )
    for row in rows:
        table.add_row(*row)
    return table


def _hours(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
