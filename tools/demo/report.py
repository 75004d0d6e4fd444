"""What the drill measured, the verdict over it, and how both are printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

KNOWN_LOSS = "KNOWN LOSS"


@dataclass(frozen=True)
class Home:
    """One user's home before and after.

    sha256_after: None when the file was not there or no lab could be had.
    seconds: from the login until the file had been read; None when it was not.
    problem: what hub or lab answered when it went wrong, one line; "" otherwise.
    """

    user: str
    kind: str
    claim_before: str
    uid_before: str
    sha256_before: str
    claim_after: str | None = None
    uid_after: str | None = None
    sha256_after: str | None = None
    seconds: float | None = None
    problem: str = ""

    @property
    def same_claim(self) -> bool:
        return (self.claim_after, self.uid_after) == (self.claim_before, self.uid_before)

    @property
    def same_file(self) -> bool:
        return self.sha256_after == self.sha256_before

    @property
    def safe(self) -> bool:
        return self.same_claim and self.same_file


@dataclass(frozen=True)
class RunningLab:
    """The lab that ran while the database was lost.

    uid_after: of the user's pod after the user came back; None when there is none.
    memory_file: "same", "gone", or why it could not be read.
    """

    user: str
    uid_before: str
    uid_after: str | None
    memory_file: str

    @property
    def pod_survived(self) -> bool:
        return self.uid_after == self.uid_before

    @property
    def survived(self) -> bool:
        return self.pod_survived and self.memory_file == "same"


@dataclass(frozen=True)
class Report:
    """claims_before, claims_after: uid by name, of every claim in the namespace."""

    vanilla: bool
    hub_down_seconds: float
    homes: tuple[Home, ...]
    lab: RunningLab
    claims_before: dict[str, str] = field(default_factory=dict)
    claims_after: dict[str, str] = field(default_factory=dict)

    @property
    def claims_unchanged(self) -> bool:
        return self.claims_after == self.claims_before

    @property
    def passed(self) -> bool:
        """The running lab is reported and never part of it: losing it is known, not accepted."""
        return all(home.safe for home in self.homes) and self.claims_unchanged

    def as_json(self) -> dict[str, Any]:
        content = asdict(self)
        for home, values in zip(self.homes, content["homes"], strict=True):
            values |= {"same_claim": home.same_claim, "same_file": home.same_file}
        content["lab"] |= {"status": lab_status(self.lab), "pod_survived": self.lab.pod_survived}
        return content | {"claims_unchanged": self.claims_unchanged, "passed": self.passed}


def lab_status(lab: RunningLab) -> str:
    return "kept" if lab.survived else KNOWN_LOSS


def show(report: Report, console: Console) -> None:
    spawner = "plain KubeSpawner" if report.vanilla else "jhub-safety"
    title = f"Hub database replaced by an empty file, hub restarted ({spawner})"
    console.print(_homes(report, title))
    for home in report.homes:
        if home.problem:
            console.print(f"{home.user}: {home.problem}", markup=False, highlight=False)
    lab = report.lab
    colour = "green" if lab.survived else "yellow"
    console.print(
        f"Running lab of {lab.user}: [{colour}]{lab_status(lab)}[/{colour}]"
        f" (pod uid survived: {_yes(lab.pod_survived)}; memory-backed file: {lab.memory_file})",
        highlight=False,
    )
    before, after = report.claims_before, report.claims_after
    console.print(
        f"Claims: {len(before)} before, {len(after)} after,"
        f" the same ones: {_yes(report.claims_unchanged)}",
        highlight=False,
    )
    for name in sorted(after.keys() - before.keys()):
        console.print(f"  new, empty: {name}", markup=False, highlight=False)
    for name in sorted(before.keys() - after.keys()):
        console.print(f"  [red]gone: {name}[/red]", highlight=False)
    console.print(_verdict(report), highlight=False)


def _homes(report: Report, title: str) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    for heading in ("User", "Claim before", "Claim after"):
        table.add_column(heading, overflow="fold")
    for heading in ("Uid\nsame", "sha256\nsame"):
        table.add_column(heading)
    table.add_column("Login to\nfile read", justify="right")
    for home in report.homes:
        table.add_row(
            f"{home.user}\n[dim]{home.kind}[/dim]",
            home.claim_before,
            home.claim_after or "none",
            _coloured(home.same_claim),
            _coloured(home.same_file),
            "-" if home.seconds is None else f"{home.seconds:.1f} s",
        )
    return table


def _verdict(report: Report) -> str:
    if report.passed:
        return "[green]Every home came back with its file, and no claim was made or lost.[/green]"
    if report.vanilla:
        return (
            "[yellow]This damage is what is expected without the library:"
            " that is what exit code 1 says here.[/yellow] Now try: make drill"
        )
    return "[red]Not every home came back unchanged.[/red]"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _coloured(value: bool) -> str:
    return "[green]yes[/green]" if value else "[red]no[/red]"
