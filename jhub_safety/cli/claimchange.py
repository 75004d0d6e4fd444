"""What comes before and around every change to many claims: a word, and an end that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
from rich.progress import Progress

from jhub_safety.cli.connection import OTHER_JOURNAL, Connection, notes, shown
from jhub_safety.errors import SafetyError
from jhub_safety.journal import Journal, NotWritten
from jhub_safety.plan import Plan

#: Names of what is left out that are printed; the others are counted.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Word:
    """What stands in the place of a typed answer."""

    yes: bool
    hub: str | None
    cluster: str | None


def word_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a script, handed on as one :class:`Word`."""

    @click.option("--yes", is_flag=True, help="Do not ask; needs --hub and --cluster.")
    @click.option("--hub", help="The hub's name, as it must be.")
    @click.option("--cluster", help="Context or server address, as it must be.")
    @wraps(function)
    def command(yes: bool, hub: str | None, cluster: str | None, **arguments: Any) -> Any:
        if yes and not (hub and cluster):
            raise click.UsageError("--yes needs --hub and --cluster, so that no script errs.")
        return function(word=Word(yes, hub, cluster), **arguments)

    return command


def check(connection: Connection, word: Word, done: str) -> None:
    """What a script says it is working on must be what is there. *done*: ``deleted``, ...

    Raises:
        SafetyError: it is not.
    """
    if word.hub is not None and word.hub != connection.hub.hub_name:
        raise SafetyError(
            f"this is hub {connection.hub.hub_name}, not {word.hub}; nothing was "
            f"{done}. Name another one with --config and --namespace"
        )
    server, context = connection.cluster.server, connection.cluster.context
    # Every pod calls its cluster so: that says nothing.
    right = {server} if context == "in-cluster" else {server, context}
    if word.cluster is not None and word.cluster not in right:
        raise SafetyError(
            f"this is cluster {server} (context {context}), not {word.cluster}; nothing was "
            f"{done}. Name another one with --context"
        )


def ask(connection: Connection, plan: Plan, done: str) -> None:
    """Raises SafetyError when the answer is not the hub's name."""
    hub = connection.hub.hub_name
    question = f"To {plan.title}, type the name of the hub"
    word = click.prompt(question, default="", show_default=False, err=True)
    if word != hub:
        raise SafetyError(f"{word!r} is not the name of the hub; nothing was {done}")


def tell_left_out(left_out: Mapping[str, Sequence[str]]) -> None:
    """What a filter chose in vain, by the reason."""
    for why, names in left_out.items():
        told = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        notes.print(shown(f"  left out: {len(names)} {why} ({told})"))


@contextmanager
def going_through(what: str, count: int, journal: Journal) -> Iterator[Callable[[object], None]]:
    """A progress bar, and when this is ended before its time, what to do then.

    Gives what is called after each item.
    """
    done = 0
    with Progress(console=notes, transient=True) as progress:
        task = progress.add_task(what, total=count)

        def advance(_: object) -> None:
            nonlocal done
            done += 1
            progress.advance(task)

        try:
            yield advance
        except (asyncio.CancelledError, SafetyError) as stopped:
            how = "Interrupted" if isinstance(stopped, asyncio.CancelledError) else "Stopped"
            notes.print(
                f"{how}: {done} of {count} were gone through. Run the same command again; what was "
                f"done is in {shown(journal.path)}"
            )
            if isinstance(stopped, NotWritten):
                raise SafetyError(f"{stopped}; nothing more was done. {OTHER_JOURNAL}") from stopped
            raise
