"""Who a claim or a lab belongs to, and what that is called in the cluster.

Pure vocabulary: no I/O. The hash and the slug are part of claim names on disk;
``tests/golden/owner-names.json`` holds them fixed for ever.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from dataclasses import dataclass, replace

#: Kubernetes' limit for the name of a claim that is also used as a label value (RFC 1123 label).
MAX_NAME = 63
#: Characters of base32 in an owner's hash: 16 * 5 = 80 bits (issue A asks for at least 80).
HASH_LENGTH = 16
#: What is left of 63 for the slug in ``claim-<slug>-<hash>``.
SLUG_LENGTH = MAX_NAME - len("claim-") - len("-") - HASH_LENGTH

PREFIX = "jhub-safety"
# Annotations: exact values, any character.
USER = f"{PREFIX}/user"
SERVER = f"{PREFIX}/server"
IDENTITY = f"{PREFIX}/identity"
HUB = f"{PREFIX}/hub"
GENERATION = f"{PREFIX}/generation"
SUPERSEDES = f"{PREFIX}/supersedes"
RELEASED = f"{PREFIX}/released"
#: Which extra volume of its owner a claim is: the name of the entry in extra_pvcs. Homes have none.
VOLUME = f"{PREFIX}/volume"
#: When an operator gave the claim to its owner: that beats the hub's records of others.
DECIDED = f"{PREFIX}/decided"
#: Whatever commands are run on many claims, not on this one; any value but "false".
PROTECT = f"{PREFIX}/protect"
# Labels: what can be selected on.
HUB_LABEL = HUB
OWNER_LABEL = f"{PREFIX}/owner"

# Written by KubeSpawner on claims and labs.
KUBESPAWNER_USER = "hub.jupyter.org/username"
KUBESPAWNER_SERVER = "hub.jupyter.org/servername"

_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_OBJECT_PART = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def _digest(*parts: str) -> str:
    """Lower-case base32 of a SHA-256 over length-prefixed parts, without padding.

    The length prefix keeps ("ab", "c") and ("a", "bc") apart. ``surrogatepass``:
    a name that is no valid text still has one digest of its own.
    """
    digest = hashlib.sha256(b"jhub-safety owner v1\0")
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()


def _slug(text: str, length: int) -> str:
    """A readable part of a name: only ``a-z0-9-``, no leading, trailing or double dash."""
    return _NOT_SLUG.sub("-", text.lower()).strip("-")[:length].rstrip("-") or "x"


def label_value(text: str) -> str:
    """*text* itself when Kubernetes takes it as a label value, else a slug and a hash of it."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    return f"{_slug(text, SLUG_LENGTH)}-{_digest('label', text)[:HASH_LENGTH]}"


def object_name(text: str) -> str:
    """*text* as a part of an object's name: itself when it is plain, else a slug and a hash."""
    if _OBJECT_PART.fullmatch(text):
        return text
    return f"{_slug(text, SLUG_LENGTH)}-{_digest('object', text)[:HASH_LENGTH]}"


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a claim or lab belongs: (hub, user, server), with a provider's id for the user.

    *server* is "" for the default server, and for every server of a hub whose users
    share one home among their servers. *identity* is the login provider's stable id when
    the hub has configured one (``SafeKubeSpawner.identity_key``), else None.
    """

    hub: str
    user: str
    server: str = ""
    identity: str | None = None
    #: 0, or which name after the first: when that one's claim was handed over to somebody.
    spare: int = 0

    @property
    def _key(self) -> tuple[str, str]:
        # The kind is hashed too: a user who is *named* like somebody's id is somebody else.
        return ("name", self.user) if self.identity is None else ("id", self.identity)

    @property
    def hash(self) -> str:
        """80 bits over identity (or user name) and server, 16 characters ``a-z2-7``.

        Neither the hub's name nor a database id is in it: a hub that is renamed or
        starts with an empty database finds the same names again.
        """
        spare = (f"spare {self.spare}",) if self.spare else ()
        return _digest(*self._key, self.server, *spare)[:HASH_LENGTH]

    @property
    def slug(self) -> str:
        """Readable, at most 40 characters, not unique.

        With a stable id it names nobody: the id may be personal data, and the user name
        beside it may change while the claim's name must not.
        """
        user = self.user if self.identity is None else "id"
        if not self.server:
            return _slug(user, SLUG_LENGTH)
        server = _slug(self.server, SLUG_LENGTH // 3)
        return f"{_slug(user, SLUG_LENGTH - 2 - len(server))}--{server}"

    @property
    def identity_digest(self) -> str | None:
        """What is written on claims in place of the id itself, which may be personal data."""
        return None if self.identity is None else _digest("identity", self.identity)[:26]

    @property
    def claim_name(self) -> str:
        """``claim-<slug>-<hash>``: DNS-1123, at most 63 characters."""
        return f"claim-{self.slug}-{self.hash}"

    def of_user(self) -> Owner:
        """The same user's default server, or shared home."""
        return replace(self, server="")

    def annotations(self, generation: str) -> dict[str, str]:
        """Annotations that mark a claim as this owner's; *generation* made its name."""
        marks = {USER: self.user, SERVER: self.server, HUB: self.hub, GENERATION: generation}
        if (digest := self.identity_digest) is not None:
            marks[IDENTITY] = digest
        return marks

    def labels(self) -> dict[str, str]:
        return {HUB_LABEL: label_value(self.hub), OWNER_LABEL: self.hash}

    @property
    def options(self) -> str:
        """``--user=U [--server=S]`` for a shell: tired people paste what a message says."""
        server = f" --server={shlex.quote(self.server)}" if self.server else ""
        return f"--user={shlex.quote(self.user)}{server}"

    @property
    def arguments(self) -> str:
        """``U [S]`` for a shell, behind ``--`` where a name looks like an option."""
        words = shlex.join([self.user, self.server] if self.server else [self.user])
        return f"-- {words}" if "-" in (self.user[:1], self.server[:1]) else words

    def __str__(self) -> str:
        return f"{self.user}/{self.server}" if self.server else self.user


def find_identity(auth_state: object, key: str) -> str:
    """The value at *key* of auth_state, as text.

    Raises:
        LookupError: it is not there, is no scalar, or stands in two places with two values.
    """
    if not isinstance(auth_state, dict):
        raise LookupError("no auth_state; is Authenticator.enable_auth_state on?")  # noqa: TRY004
    first, dot, rest = key.partition(".")
    if dot:
        below = auth_state.get(first)
        found = [below.get(rest)] if isinstance(below, dict) else []
    else:
        found = [auth_state.get(key)]
        found += [value.get(key) for value in auth_state.values() if isinstance(value, dict)]
    scalars = (v for v in found if isinstance(v, str | int) and not isinstance(v, bool))
    values = {str(value) for value in scalars if value != ""}
    if len(values) != 1:
        raise LookupError(f"{len(values)} different values in auth_state")
    return values.pop()
