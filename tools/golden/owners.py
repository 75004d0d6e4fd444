"""Write down what this library calls the claims of some owners: tests/golden/owner-names.json.

Run as ``python -m tools.golden.owners`` after adding to :data:`OWNERS`. What is in the file
already is never changed: these names are on disk. When the code gives another name today,
nothing is written and the differences are printed.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from jhub_safety.owner import Owner

FILE = Path(__file__).parents[2] / "tests" / "golden" / "owner-names.json"

HUB = "jupyter"
USERS = (
    "alice",
    "Alice",
    "bob",
    "alicegpu",
    "john.doe",
    "john-2edoe",
    "john-doe",
    "john_doe",
    "erin@school.edu",
    "name+tag@gmail.com",
    "a b",
    "a--b",
    "a-",
    "-a",
    "1user",
    "UPPER.CASE",
    "-",
    "--",
    ".",
    "@",
    "_",
    "%",
    "100%",
    "x",
    "ß",
    "ü",
    "über",
    "ÜBER",
    "İstanbul",
    "José García",
    "李雷",
    "🦊",
    "🦊🦊",
    "\ud800",
    "tab\tname",
    "line\nbreak",
    "nul\0byte",
    "quote'name",
    "<script>",
    "d" * 39,
    "d" * 40,
    "d" * 41,
    "d" * 39 + ".",
    "d" * 39 + ".e",
    "c" * 63,
    "c" * 255,
    "é" * 255,
    "a-" * 127,
)
SERVERS = (
    *("gpu", "Gpu", "my server", "my-server", "-", ".", "🦊", "ü"),
    *("s" * 13, "s" * 14, "s" * 255),
)
IDENTITIES = (
    "alice",
    "12345",
    "248289761001",
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "https://orcid.org/0000-0002-1825-0097",
    "e7a1c1e0-0f5e-4a53-9f1e-2b1f6d9c8e77",
    "🦊",
    "i" * 255,
)

OWNERS: tuple[Owner, ...] = (
    *(Owner(HUB, user) for user in USERS),
    *(Owner(HUB, "alice", server) for server in SERVERS),
    *(Owner(HUB, "c" * 255, server) for server in SERVERS),
    Owner(HUB, "erin@school.edu", "gpu"),
    Owner(HUB, "🦊", "🦊"),
    *(Owner(HUB, "alice", "", identity) for identity in IDENTITIES),
    *(Owner(HUB, "alice", "gpu", identity) for identity in IDENTITIES),
    # The same owners, on another hub and under another user name.
    Owner("Production Hub (EU)", "alice"),
    Owner("h" * 64, "alice", "gpu"),
    Owner(HUB, "alice.renamed", "", "248289761001"),
)


def record(owner: Owner) -> dict[str, Any]:
    return {
        "hub": owner.hub,
        "user": owner.user,
        "server": owner.server,
        "identity": owner.identity,
        "claim": owner.claim_name,
        "hash": owner.hash,
        "labels": owner.labels(),
        "identity_digest": owner.identity_digest,
        "spares": [replace(owner, spare=n).claim_name for n in (1, 2)],
    }


def main() -> int:
    kept = json.loads(FILE.read_text(encoding="ascii")) if FILE.exists() else []
    key = ("hub", "user", "server", "identity")
    changed = [entry for entry in kept if record(Owner(*(entry[part] for part in key))) != entry]
    if changed:
        print(f"{len(changed)} names in {FILE.name} are not what the code gives; nothing written:")
        for entry in changed:
            now = record(Owner(*(entry[part] for part in key)))
            print(f"  {entry['user']!a}: {entry['claim']} -> {now['claim']}")
        return 1
    known = {tuple(entry[part] for part in key) for entry in kept}
    new = [record(o) for o in OWNERS if (o.hub, o.user, o.server, o.identity) not in known]
    lines = ",\n".join(json.dumps(entry) for entry in [*kept, *new])
    FILE.write_text(f"[\n{lines}\n]\n", encoding="ascii")
    print(f"{len(kept)} kept, {len(new)} added")
    return 0


if __name__ == "__main__":
    sys.exit(main())
