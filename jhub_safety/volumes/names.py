"""Every generation of claim names: what an owner's claim was called, and whose a name can be."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from jhub_safety.errors import ConfigError
from jhub_safety.owner import Owner
from jhub_safety.volumes.slugs import STYLES, Guess, StyleName, lossy

#: Our own template. ``{owner_slug}`` and ``{owner_hash}`` stand for user and server,
#: ``{user_slug}`` and ``{user_hash}`` for the user alone (one home for all their servers).
OWN_TEMPLATE = "claim-{owner_slug}-{owner_hash}"

_SERVER_FIELDS = frozenset({"servername", "user_server", "owner_slug", "owner_hash"})
_OWN_FIELDS = frozenset({"owner_slug", "owner_hash", "user_slug", "user_hash"})
_FIXED_FIELDS = frozenset({"hubnamespace", "namespace"})
_PLAIN_FIELDS = frozenset(
    # legacy_escape_username: KubeSpawner 0.6 to 6.2, for hubs that kept 2017's names.
    {"username", "userid", "unescaped_username", "unescaped_servername", "legacy_escape_username"}
)
#: KubeSpawner 7 spells the style out in the field's name (kubespawner/spawner.py:2158).
_STYLED_FIELD = re.compile(r"(safe|escaped)_(username|servername|user_server)")
_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
#: Longest name of a claim (DNS-1123 subdomain).
_NAME_LENGTH = 253
#: Ways to cut a name into fields that are tried before it counts as "many could have it".
#: Two adjacent fields (z2jh-3) need 500 for the longest name; three would need 60,000.
_CUTS = 5_000
#: How often the claim of one owner may be handed over and a new one made.
_SPARES = 5


@dataclass(frozen=True, slots=True)
class Place:
    """What templates call ``{namespace}`` (the claim's) and ``{hubnamespace}`` (the hub's)."""

    namespace: str = ""
    hub_namespace: str = ""

    @property
    def hubnamespace(self) -> str:
        # kubespawner/spawner.py:2133 (7.1.0)
        return "user" if self.hub_namespace == "default" else self.hub_namespace


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Generation:
    """One rule by which claims were named.

    *key* is what operators write in ``earlier_generations`` and what is written on a claim.
    """

    key: str
    template: str
    style: StyleName
    about: str = ""

    def __post_init__(self) -> None:
        for _, field, _ in self._parts():
            if field is not None and not self._known(field):
                raise ConfigError(
                    f"pvc_name_template {self.template!r}: the field {{{field}}} is not known. "
                    "Use {username}, {servername}, {user_server}, {owner_slug}, {owner_hash}, "
                    "{user_slug}, {user_hash} or {hubnamespace}."
                )

    @staticmethod
    def _known(field: str) -> bool:
        return (
            field in _OWN_FIELDS | _FIXED_FIELDS | _SERVER_FIELDS | _PLAIN_FIELDS
            or _STYLED_FIELD.fullmatch(field) is not None
        )

    def _parts(self) -> Iterator[tuple[str, str | None, None]]:
        if not isinstance(self.template, str):
            raise ConfigError(f"pvc_name_template {self.template!r}: wanted is a text")
        try:
            for literal, field, _, _ in string.Formatter().parse(self.template):
                yield literal, field, None
        except ValueError as error:
            raise ConfigError(f"pvc_name_template {self.template!r}: {error}") from error

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(field for _, field, _ in self._parts() if field)

    @property
    def per_server(self) -> bool:
        """True when each named server gets a claim of its own."""
        return any(field in _SERVER_FIELDS or "server" in field for field in self.fields)

    def render(
        self,
        owner: Owner,
        *,
        place: Place = NOWHERE,
        userid: str | None = None,
    ) -> str | None:
        """The name of *owner*'s claim, or None when it needs a user id that is not given."""
        if "userid" in self.fields and userid is None:
            return None
        values = self._values(owner, place)
        values["userid"] = userid or ""
        name = self.template.format(**values)
        # kubespawner/spawner.py:2184 (7.1.0): dashes left by an empty server name go, unless
        # the template itself ends with one.
        return name if self.template.endswith("-") else name.rstrip("-")

    def pattern(self, owner: Owner, *, place: Place = NOWHERE) -> re.Pattern[str]:
        """Matches every name that *owner*'s claim could have, whatever the user id was."""
        mark = "\0"
        values = self._values(owner, place)
        values["userid"] = mark
        name = self.template.format(**values)
        if not self.template.endswith("-"):
            name = name.rstrip("-")
        return re.compile(re.escape(name).replace(re.escape(mark), r"[0-9]+"))

    def _values(self, owner: Owner, place: Place) -> dict[str, str]:
        user = owner.of_user()
        values = STYLES[self.style].render(owner.user, owner.server)
        for prefix, style in (("safe", STYLES["safe"]), ("escaped", STYLES["escape"])):
            for field, value in style.render(owner.user, owner.server).items():
                values[f"{prefix}_{field}"] = value
        # KubeSpawner joins this one even with an empty server name (spawner.py:2171).
        username, servername = values["escaped_username"], values["escaped_servername"]
        values["escaped_user_server"] = f"{username}--{servername}"
        values |= {
            "unescaped_username": owner.user,
            "legacy_escape_username": lossy(owner.user),
            "unescaped_servername": owner.server,
            "owner_slug": owner.slug,
            "owner_hash": owner.hash,
            "user_slug": user.slug,
            "user_hash": user.hash,
            "namespace": place.namespace,
            "hubnamespace": place.hubnamespace,
        }
        return values

    def read(self, name: str, owner: Owner, *, place: Place = NOWHERE) -> Iterator[Guess]:
        """Every (user, server) that this generation could have named *name* for.

        *owner* is needed for our own hashes: they cannot be read back, only compared.
        """
        if valid_name(name):  # no claim is called anything else
            yield from self.read_text(name, owner, place=place)

    def read_text(self, name: str, owner: Owner, *, place: Place = NOWHERE) -> Iterator[Guess]:
        """The same for what is no claim's name: a folder may hold slashes and any character."""
        if len(name) > _NAME_LENGTH:
            yield Guess(many=True)  # the search below is for 253 characters at most
            return
        parts = [(literal, field) for literal, field, _ in self._parts()]
        cuts = [_CUTS]
        # Dashes that an empty server name left behind were stripped (see render).
        strips = 1 if self.template.endswith("-") else 3
        for count in range(strips):
            yield from self._match(parts, name + "-" * count, Guess(), owner, place, cuts)
        if cuts[0] <= 0:
            yield Guess(many=True)

    def _match(
        self,
        parts: list[tuple[str, str | None]],
        text: str,
        so_far: Guess,
        owner: Owner,
        place: Place,
        cuts: list[int],
    ) -> Iterator[Guess]:
        if not parts:
            if not text:
                yield so_far
            return
        literal, field = parts[0]
        if not text.startswith(literal):
            return
        text = text[len(literal) :]
        if field is None:
            yield from self._match(parts[1:], text, so_far, owner, place, cuts)
            return
        # The last field takes all that is left.
        for end in range(len(text) + 1) if len(parts) > 1 else (len(text),):
            cuts[0] -= 1
            if cuts[0] <= 0:
                return
            for guess in self._read_field(field, text[:end], owner, place):
                if (merged := _merge(so_far, guess)) is not None:
                    yield from self._match(parts[1:], text[end:], merged, owner, place, cuts)

    def _read_field(self, field: str, text: str, owner: Owner, place: Place) -> Iterator[Guess]:
        style = STYLES[self.style]
        if styled := _STYLED_FIELD.fullmatch(field):
            style, field = STYLES["safe" if styled[1] == "safe" else "escape"], styled[2]
        elif field == "legacy_escape_username":
            style, field = STYLES["2017"], "username"
        match field:
            case "username" | "servername" | "user_server":
                yield from style.read(field, text)
            case "unescaped_username" if text:
                yield Guess(user=text)
            case "unescaped_servername":
                yield Guess(server=text)
            case "owner_hash" if text == owner.hash:
                yield Guess(owner.user, owner.server)
            case "user_hash" if text == owner.of_user().hash:
                yield Guess(owner.user)
            case "owner_slug" | "user_slug" if text:
                yield Guess()  # a slug says nothing for certain; the hash beside it does
            case "userid" if text.isascii() and text.isdigit():
                yield Guess()
            case "namespace" if text == place.namespace:
                yield Guess()
            case "hubnamespace" if text == place.hubnamespace:
                yield Guess()


def _merge(one: Guess, two: Guess) -> Guess | None:
    if None not in (one.user, two.user) and one.user != two.user:
        return None
    if None not in (one.server, two.server) and one.server != two.server:
        return None
    return Guess(
        one.user if one.user is not None else two.user,
        one.server if one.server is not None else two.server,
        one.many or two.many,
    )


#: What hubs really ran. Each is held by the golden vectors of the releases named.
BUILT_IN: dict[str, Generation] = {
    generation.key: generation
    for generation in (
        Generation(
            "kubespawner-7",
            "claim-{user_server}",
            "safe",
            "KubeSpawner 7, z2jh 4 and later",
        ),
        Generation(
            "kubespawner-7-escape",
            "claim-{user_server}",
            "escape",
            'KubeSpawner 7 with slug_scheme = "escape"',
        ),
        Generation(
            "kubespawner-6",
            "claim-{username}--{servername}",
            "escape",
            "KubeSpawner 0.12 to 6.2 with its own default",
        ),
        Generation(
            "z2jh-3",
            "claim-{username}{servername}",
            "escape",
            "z2jh 0.10 to 3.3.8, which pinned this template; also any hub up to KubeSpawner 6 "
            "without named servers",
        ),
        Generation(
            "kubespawner-0.11",
            "claim-{username}{servername}",
            "0.11",
            "KubeSpawner 0.11: the server name brings a dash",
        ),
        Generation(
            "kubespawner-0.10",
            "claim-{username}{servername}",
            "0.10",
            "KubeSpawner 0.10: the server name brings an escaped dash",
        ),
        Generation(
            "kubespawner-0.7",
            "claim-{username}{servername}",
            "0.7",
            "KubeSpawner 0.7 and 0.8: the server name brings a dash and is not escaped",
        ),
        Generation(
            "no-servers",
            "claim-{username}",
            "escape",
            "any KubeSpawner 0.6 to 6.2 of a hub that never allowed named servers",
        ),
        Generation(
            "2017",
            "claim-{username}-{userid}",
            "2017",
            "KubeSpawner up to 0.5: every unsafe character a dash, and the database id",
        ),
    )
}
OWN = Generation("jhub-safety", OWN_TEMPLATE, "safe", "this library")


def spare_names(generation: Generation, owner: Owner, *, place: Place = NOWHERE) -> tuple[str, ...]:
    """Names for *owner*'s next claim when the first was handed over with a rename.

    Only for templates with our hash; any other has one name for an owner.
    """
    if not generation.fields & {"owner_hash", "user_hash"}:
        return ()
    names = (generation.render(replace(owner, spare=n), place=place) for n in range(1, _SPARES + 1))
    return tuple(name for name in names if name)


@dataclass(frozen=True, slots=True)
class Named:
    """A claim name that *owner*'s home could have, and by which generations."""

    name: str
    generations: tuple[str, ...]


def candidates(
    owner: Owner,
    generations: Iterable[Generation],
    existing: Iterable[str],
    *,
    place: Place = NOWHERE,
) -> tuple[Named, ...]:
    """Those of the *existing* names that some generation would have given *owner*'s claim.

    A generation without a server in its template names the user's one shared home; it says
    nothing about a named server's.
    """
    found: dict[str, list[str]] = {}
    names = set(existing)
    for generation in generations:
        if owner.server and not generation.per_server:
            continue
        if "userid" in generation.fields:
            pattern = generation.pattern(owner, place=place)
            hits = {name for name in names if pattern.fullmatch(name)}
        else:
            hits = {generation.render(owner, place=place)} & names  # type: ignore[assignment]
        for name in hits:
            found.setdefault(name, []).append(generation.key)
    return tuple(Named(name, tuple(keys)) for name, keys in sorted(found.items()))


def other_owner(
    name: str,
    owner: Owner,
    generations: Iterable[Generation],
    *,
    place: Place = NOWHERE,
) -> str | None:
    """Somebody else whose claim could be called *name*, in words; None when nobody's could.

    Generations that a hub declared are the whole world here: without them almost every name
    could be somebody else's (``tests/golden/collisions.json``).
    """
    for generation in generations:
        for guess in generation.read(name, owner, place=place):
            if guess.many:
                return f"several users under {generation.key}"
            server = owner.server if guess.server is None else guess.server
            if (guess.user, server) != (owner.user, owner.server):
                who = f"{guess.user}/{guess.server}" if guess.server else str(guess.user)
                return f"{who} under {generation.key}"
    return None


def valid_name(name: str) -> bool:
    """True for a name that Kubernetes takes for a claim (DNS-1123 subdomain, at most 253)."""
    return len(name) <= _NAME_LENGTH and _NAME.fullmatch(name) is not None
