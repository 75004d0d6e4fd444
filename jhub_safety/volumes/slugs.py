"""How each generation of KubeSpawner wrote user and server names into object names.

Written from what the releases themselves answered (``tests/golden/kubespawner-*.json``, made
by ``tools/golden``), not from the installed KubeSpawner: what an earlier release called a
claim must not change when KubeSpawner is upgraded.

Each style renders a name's fields, and reads them back: :meth:`Style.read` says which users and
servers could have produced a piece of text. That is what decides whether a claim without owner
annotations can only be one person's.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

SAFE = frozenset(string.ascii_lowercase + string.digits)
_ESCAPED = re.compile(r"(?:[a-z0-9]|-[0-9a-f]{2})+")
_PLAIN = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_HASHED = re.compile(r"---[0-9a-f]{8}")
_NOT_ALNUM = re.compile(r"[^a-z0-9]+")
#: ``_slug_max_length`` of KubeSpawner 7 (kubespawner/spawner.py:2103, 7.1.0).
_SAFE_LENGTH = 48

StyleName = Literal["2017", "0.7", "0.10", "0.11", "escape", "safe"]


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to read a piece of a name. None: this piece says nothing about it.

    *many*: more than one user or server renders to this text, too many to list.
    """

    user: str | None = None
    server: str | None = None
    many: bool = False


_MANY = Guess(many=True)


def escape(text: str) -> str:
    """Every byte outside a-z0-9 as ``-xx`` (escapism with '-', as KubeSpawner 0.6 to 6 used it)."""
    return "".join(
        char
        if char in SAFE
        else "".join(f"-{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in text
    )


def unescape(text: str) -> str | None:
    """The one string whose :func:`escape` is *text*, or None."""
    if not _ESCAPED.fullmatch(text):
        return None
    raw = re.sub(rb"-([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode())
    try:
        found = raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return found if escape(found) == text else None


def lossy(text: str) -> str:
    """2017: lower case, every character outside a-z0-9 turned into '-'."""
    return "".join(char if char in SAFE else "-" for char in text.lower())


def _short(name: str, length: int) -> str:
    slug = _NOT_ALNUM.sub("-", name.lower()).lstrip("-")[:length].rstrip("-")
    if slug and slug[0] not in string.ascii_lowercase:
        slug = "x-" + slug[: length - 2]
    return slug or "x"


def _is_plain(name: str, length: int = _SAFE_LENGTH) -> bool:
    # KubeSpawner matches with "$", which lets one trailing newline through; such a name
    # cannot be made in JupyterHub and is no valid object name, so it is not copied.
    return len(name) <= length and "--" not in name and _PLAIN.fullmatch(name) is not None


def safe(name: str) -> str:
    """KubeSpawner 7's slug: a plain name as it is, else a shortened one with 8 hex of SHA-256."""
    if _is_plain(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_short(name, _SAFE_LENGTH - 11)}---{digest}"


def safe_user_server(user: str, server: str) -> str:
    """KubeSpawner 7's ``{user_server}``: joined by '--', hashed together when too long."""
    left, right = safe(user), safe(server) if server else ""
    if len(left) + len(right) + 2 > _SAFE_LENGTH:
        digest = hashlib.sha256(
            user.encode("utf-8", "surrogatepass")
            + b"\xff"
            + server.encode("utf-8", "surrogatepass")
        ).hexdigest()[:8]
        each = (_SAFE_LENGTH - 9) // 2 - 2
        return f"{_short(user, each)}--{_short(server, each)}---{digest}"
    return f"{left}--{right}" if server else left


@dataclass(frozen=True, slots=True)
class Style:
    """One way of writing ``{username}``, ``{servername}`` and ``{user_server}``."""

    name: StyleName
    #: What a server name brought along in front of itself.
    server_prefix: str = ""
    #: Server names went in as they are (only plain ones can have made a claim).
    raw_server: bool = False

    def _server(self, server: str) -> str:
        return server if self.raw_server else escape(server)

    def render(self, user: str, server: str) -> dict[str, str]:
        """The fields that depend on the style."""
        if self.name == "safe":
            return {
                "username": safe(user),
                "servername": safe(server) if server else "",
                "user_server": safe_user_server(user, server),
            }
        username = lossy(user) if self.name == "2017" else escape(user)
        servername = self.server_prefix + self._server(server) if server else ""
        return {
            "username": username,
            "servername": servername,
            "user_server": f"{username}--{servername}" if servername else username,
        }

    def read(self, field: str, text: str) -> Iterator[Guess]:
        """Every way in which *text* can be what *field* rendered to; nothing when it cannot be."""
        match field:
            case "username":
                yield from self._read_user(text)
            case "servername":
                yield from self._read_server(text)
            case "user_server":
                yield from self._read_both(text)

    def _read_user(self, text: str) -> Iterator[Guess]:
        if not text:
            return
        if self.name == "2017":
            # Lower-case letters and digits stand for themselves (JupyterHub lower-cases
            # names); a dash may have been any other character.
            yield Guess(user=text) if set(text) <= SAFE else _MANY
        elif self.name == "safe":
            yield from self._read_safe(text, "user")
        elif (user := unescape(text)) is not None:
            yield Guess(user=user)

    def _read_server(self, text: str) -> Iterator[Guess]:
        if not text:
            yield Guess(server="")
        elif self.name == "safe":
            yield from self._read_safe(text, "server")
        elif text.startswith(self.server_prefix):
            rest = text[len(self.server_prefix) :]
            server = rest if self.raw_server else unescape(rest)
            if server:
                yield Guess(server=server)

    def _read_both(self, text: str) -> Iterator[Guess]:
        if self.name == "safe" and _HASHED.search(text):
            yield _MANY
            return
        left, dashes, right = text.partition("--")
        for user in self._read_user(left):
            if not dashes:
                yield Guess(user=user.user, server="", many=user.many)
            else:
                for server in self._read_server(right):
                    if right:
                        yield Guess(user.user, server.server, user.many or server.many)

    @staticmethod
    def _read_safe(text: str, what: Literal["user", "server"]) -> Iterator[Guess]:
        if _HASHED.search(text):
            # 32 bits: anybody can search for a name with the same slug and hash.
            yield _MANY
        elif _is_plain(text):
            yield Guess(user=text) if what == "user" else Guess(server=text)


STYLES: dict[StyleName, Style] = {
    "2017": Style("2017"),
    "0.7": Style("0.7", server_prefix="-", raw_server=True),
    "0.10": Style("0.10", server_prefix="-2d"),
    "0.11": Style("0.11", server_prefix="-"),
    "escape": Style("escape"),
    "safe": Style("safe"),
}
