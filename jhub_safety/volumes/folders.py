"""Homes on one shared claim: which folder is a user's. The table of docs/folders.md, purely.

A folder carries no owner: it is known by the hub's record, an operator's word, or its name alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from jhub_safety.errors import ConfigError
from jhub_safety.owner import Owner
from jhub_safety.volumes.names import Generation, Place
from jhub_safety.volumes.slugs import Guess, StyleName

_STYLES: tuple[StyleName, StyleName] = ("safe", "escape")
_EMPTY: Mapping[str, str] = MappingProxyType({})
#: Longest name of a folder, in bytes (ext4, XFS, NFS).
_LONGEST = 255


class Kind(StrEnum):
    """What is there under a name."""

    ABSENT = "absent"
    FOLDER = "folder"
    #: A symbolic link, on the way or at its end: what it points to is not looked at.
    LINK = "link"
    #: A file, or something else that is no folder.
    OTHER = "other"


class Row(StrEnum):
    """The rows of the table. The values are stable: metrics, docs and tests use them."""

    CHOSEN = "folder-chosen"
    KNOWN = "folder-known"
    TODAY = "folder-today"
    EARLIER = "folder-earlier"
    NEW = "folder-new"
    GONE = "folder-gone"
    SEVERAL = "folder-several"
    UNPROVEN = "folder-unproven"
    ODD = "folder-odd"
    EMPTY = "folder-empty"
    CONFLICT = "folder-conflict"
    INCOMPLETE = "folder-incomplete"


class Mode(StrEnum):
    """Upon what a lab may go on at once, before the hub has heard of it (looking.py)."""

    #: The first name is a folder, whatever else is there.
    MUST = "must"
    #: It is a folder, or nothing is there.
    MAY = "may"
    #: It is a folder and no other name is, or none is.
    ONLY = "only"
    #: None is.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Question:
    """Whose folder is looked for.

    *owner*: server "" where all servers of a user share the folder.
    *names*: every folder that may be theirs, *today* among them.
    """

    owner: Owner
    today: str
    names: tuple[str, ...]
    #: Of this server, or of the user's others where they share it.
    saved: frozenset[str] = frozenset()
    #: What an operator has said; *may_be_new*: also when it does not exist.
    chosen: str | None = None
    may_be_new: bool = False
    #: This server ran before under a KubeSpawner that rendered today's folder.
    ran: bool = False
    #: Users whom the hub knows, and who may have had a folder by its name or have it on record.
    #: Of what an operator chose: only those who have it on record.
    rivals: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    #: Users whom nobody knows, and who may have had it under another rule.
    guesses: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    @property
    def expected(self) -> str:
        """The folder that is mounted unless the look says otherwise."""
        return self.chosen or next(iter(self.saved), self.today)

    @property
    def mode(self) -> Mode:
        """Upon what a start may go on; agrees with :func:`decide`, see the tests."""
        if self.chosen is not None:
            return Mode.MAY if self.may_be_new else Mode.MUST
        if self.saved:
            return Mode.MUST
        return Mode.NONE if self._doubt_about(self.today) else Mode.ONLY

    def _doubt_about(self, folder: str) -> str:
        """Whose it may be instead, or ""."""
        if folder in self.rivals:
            return self.rivals[folder]
        # What an earlier rule made for a name that the hub does not know is taken by whoever is
        # called that today: somebody may have chosen their name for it.
        if folder == self.today and not self.ran:
            return self.guesses.get(folder, "")
        return ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found under each name. *fault*: it could not look. *empty*: nothing at all is on
    the claim, though this hub has had homes there."""

    kinds: Mapping[str, Kind] = field(default_factory=lambda: MappingProxyType({}))
    empty: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """*folder* None: the start is refused. *command*: the arguments after ``jhub-safety``, "" where
    only the cluster knows more."""

    row: Row
    folder: str | None
    why: str
    command: str = ""
    retryable: bool = False


def decide(question: Question, seen: Seen) -> Decision:
    """The first row of the table that applies."""
    owner = question.owner
    if question.chosen is not None and (other := question.rivals.get(question.chosen)):
        # An operator's word is about a name, and whoever is called so next would be given the
        # files of the one who had it: they go on by record.
        return _refuse(
            question,
            Row.UNPROVEN,
            f"an operator chose folder {question.chosen!r} for {owner}, but the hub's record of "
            f"{other} names it as theirs (was a user renamed?)",
        )
    if question.chosen is None and len(question.saved) > 1:
        return _refuse(
            question,
            Row.CONFLICT,
            f"the hub's records of {owner}'s servers name different folders "
            f"({_list(question.saved)})",
        )
    if seen.fault:
        return _incomplete(question, seen.fault)
    kinds = seen.kinds
    if missing := [name for name in _asked(question) if name not in kinds]:
        return _incomplete(question, f"nothing was said of {_list(missing)}")
    if question.chosen is not None or question.saved:
        return _decide_named(question, kinds[question.expected])
    odd = [name for name in question.names if kinds[name] in (Kind.LINK, Kind.OTHER)]
    if odd:
        return _refuse(
            question,
            Row.ODD,
            f"{_list(odd)} is a {'symbolic link' if kinds[odd[0]] is Kind.LINK else 'file'} and "
            f"no folder: where {owner}'s files are is not certain",
        )
    found = [name for name in question.names if kinds[name] is Kind.FOLDER]
    if len(found) > 1:
        return _refuse(question, Row.SEVERAL, f"{owner} has {len(found)} folders: {_list(found)}")
    if not found:
        if seen.empty:
            why = "the claim that holds the homes is empty, though this hub has had some there"
            return replace(_incomplete(question, why), row=Row.EMPTY)
        return Decision(Row.NEW, question.today, "no folder that may be this user's exists")
    (folder,) = found
    if other := question._doubt_about(folder):
        return _refuse(
            question,
            Row.UNPROVEN,
            f"folder {folder!r} may be {owner}'s by its name, but as well {other}'s",
        )
    if folder == question.today:
        return Decision(Row.TODAY, folder, "it exists, and no other that may be this user's")
    return Decision(Row.EARLIER, folder, "an earlier rule named it so, and no other exists")


def _asked(question: Question) -> tuple[str, ...]:
    """The names whose kinds the decision needs."""
    alone = question.chosen is not None or bool(question.saved)
    return (question.expected,) if alone else question.names


def _decide_named(question: Question, kind: Kind) -> Decision:
    """A record or an operator names the folder."""
    folder, owner = question.expected, question.owner
    chosen = question.chosen is not None
    if kind is Kind.FOLDER:
        if chosen:
            return Decision(Row.CHOSEN, folder, "an operator chose it")
        return Decision(Row.KNOWN, folder, "the hub's record names it")
    if kind is Kind.ABSENT and chosen and question.may_be_new:
        return Decision(Row.CHOSEN, folder, "an operator chose it, to be made")
    says = "an operator chose" if chosen else f"the hub's record of {owner} names"
    if kind is Kind.ABSENT:
        return _refuse(
            question,
            Row.GONE,
            f"{says} folder {folder!r}, which is not there: a home was here and is missing",
        )
    return _refuse(question, Row.ODD, f"{says} {folder!r}, which is no folder")


def _refuse(question: Question, row: Row, why: str) -> Decision:
    return Decision(row, None, why, command=f"homes choose FOLDER {question.owner.options}")


def _incomplete(question: Question, why: str) -> Decision:
    return Decision(
        Row.INCOMPLETE,
        None,
        f"the folder of {question.owner} could not be looked for: {why}",
        retryable=True,
    )


def _list(names: Iterable[str]) -> str:
    # For a terminal and a shell: what is no plain word is quoted, and nothing else is in it.
    shown = (name.encode("unicode_escape").decode() for name in sorted(names))
    return ", ".join(shlex.quote(name) for name in shown)


# -- names


def generations(template: str, earlier: Iterable[str]) -> tuple[Generation, ...]:
    """Today's template and the earlier ones, each in both styles."""
    return tuple(
        Generation(f"{one} ({style})", one, style)
        for one in dict.fromkeys((template, *earlier))
        for style in _STYLES
    )


def check_template(template: str) -> None:
    """Raises ConfigError for one that cannot name users' folders."""
    try:
        generation = Generation(template, template, "safe")
    except ConfigError as error:
        raise ConfigError(str(error).replace("pvc_name_template", "the template")) from error
    if "userid" in generation.fields:
        raise ConfigError(f"{template!r}: {{userid}} cannot be looked for; every user gets it anew")
    telling = ("username", "user_server", "owner_hash", "user_hash")
    if not any(field.endswith(telling) for field in generation.fields):
        raise ConfigError(f"{template!r} is the same for every user; wanted: with {{username}}")
    if not valid_folder(Generation("x", template, "safe").render(Owner("", "x", "x")) or ""):
        raise ConfigError(f"{template!r} is no path below the root of a claim")


def valid_folder(name: str) -> bool:
    """True for a path below a claim's root, as a ``subPath`` must be, and not the root itself."""
    return "\0" not in name and all(
        part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= _LONGEST
        for part in name.split("/")
    )


def folders(
    owner: Owner, every: Iterable[Generation], place: Place, former: Iterable[str] = ()
) -> tuple[str, ...]:
    """Every folder that *owner* may have, also under the user names they had before."""
    found = []
    for who in (owner, *(replace(owner, user=name) for name in former)):
        for generation in every:
            if owner.server and not generation.per_server:
                continue
            name = (generation.render(who, place=place) or "").rstrip("/")
            if valid_folder(name):
                found.append(name)
    return tuple(dict.fromkeys(found))


def readings(
    folder: str, owner: Owner, every: Iterable[Generation], place: Place
) -> tuple[tuple[Generation, Guess], ...]:
    """Everybody but *owner* who could have *folder* by its name, and by which rule."""
    found = []
    for generation in every:
        # "{username}/{servername}" names the default server's with a slash at its end.
        for text in (folder, folder + "/"):
            for guess in generation.read_text(text, owner, place=place):
                server = owner.server if guess.server is None else guess.server
                if guess.many or (guess.user, server) != (owner.user, owner.server):
                    found.append((generation, guess))
    return tuple(dict.fromkeys(found))
