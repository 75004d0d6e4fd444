"""Directives that write tables from the code itself, so that the two cannot drift apart.

``jhub-settings``: every trait with type, default and help. ``jhub-generations``: every rule by
which claims were named, with examples.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from traitlets import Bool, Enum, Float, HasTraits, Int, List, TraitType, Unicode

from jhub_safety.hubdb.backup import DatabaseBackup
from jhub_safety.hubdb.guard import DatabaseGuard
from jhub_safety.owner import Owner
from jhub_safety.sessions.nublado import NubladoInventory
from jhub_safety.sessions.reconciler import SessionReconciler
from jhub_safety.settings import SECTION, SafetySettings
from jhub_safety.volumes.names import BUILT_IN, OWN, Generation, Place

EXAMPLES = (
    Owner("jhub", "alice"),
    Owner("jhub", "erin@school.edu"),
    Owner("jhub", "alice", "gpu"),
)
#: Stands in the examples for the database id that 2017's names ended in.
USER_ID = "17"


def type_of(trait: TraitType[Any, Any]) -> str:
    """In words for a person who writes YAML or Python."""
    if isinstance(trait, Enum):
        return "one of " + ", ".join(f"``{value}``" for value in trait.values)
    if isinstance(trait, Int):
        return f"whole number, at least {trait.min}"
    if isinstance(trait, Float):
        return f"number, at least {trait.min:g}"
    if trait.name == "extra_pvcs":
        return "list of dictionaries"
    if trait.name == "databases":
        return "list of dictionaries, or of names"
    for kind, words in ((Bool, "true or false"), (List, "list of text"), (Unicode, "text")):
        if isinstance(trait, kind):
            return words
    raise TypeError(f"docs/ext/from_code.py has no words for {trait!r}")


class FromCode(Directive):
    """Parses the reStructuredText that a subclass makes."""

    has_content = False

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        holder = nodes.container()
        text = StringList(list(self.lines()), source=type(self).__name__)
        self.state.nested_parse(text, 0, holder)
        return holder.children


class Settings(FromCode):
    """``.. jhub-settings:: SECTION``"""

    required_arguments = 1
    CLASSES: ClassVar[dict[str, type[HasTraits]]] = {
        SECTION: SafetySettings,
        "SessionReconciler": SessionReconciler,
        "DatabaseGuard": DatabaseGuard,
        "DatabaseBackup": DatabaseBackup,
        "NubladoInventory": NubladoInventory,
    }

    def lines(self) -> Iterator[str]:
        section = self.arguments[0]
        cls = self.CLASSES[section]
        traits = cls.class_own_traits(config=True)
        for part in cls.__bases__:
            # A section whose class is made of several of ours.
            if part.__name__.endswith("Settings"):
                traits |= part.class_own_traits(config=True)
        for name, trait in traits.items():
            yield f".. confval:: {section}.{name}"
            yield f"   :type: {type_of(trait)}"
            yield f"   :default: ``{trait.default()!r}``"
            yield ""
            for line in inspect.cleandoc(trait.help).splitlines():
                yield f"   {line}"
            yield ""


class Generations(FromCode):
    """``.. jhub-generations::``"""

    HEADINGS: ClassVar[tuple[str, ...]] = ("Key", "Used by", *map(str, EXAMPLES))

    def lines(self) -> Iterator[str]:
        yield ".. list-table::"
        yield "   :header-rows: 1"
        yield ""
        yield from self._row(self.HEADINGS)
        for generation in (*BUILT_IN.values(), OWN):
            examples = (self._example(generation, owner) for owner in EXAMPLES)
            yield from self._row((f"``{generation.key}``", generation.about, *examples))
        yield ""

    @staticmethod
    def _row(cells: tuple[str, ...]) -> Iterator[str]:
        for number, cell in enumerate(cells):
            yield f"   {'*' if number == 0 else ' '} - {cell}"

    @staticmethod
    def _example(generation: Generation, owner: Owner) -> str:
        if owner.server and not generation.per_server:
            return "(none)"
        return f"``{generation.render(owner, place=Place('jhub', 'jhub'), userid=USER_ID)}``"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("jhub-settings", Settings)
    app.add_directive("jhub-generations", Generations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
