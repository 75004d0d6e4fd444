"""Find the names that two owners share, within one release and across releases."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import combinations
from typing import Any, NamedTuple

LIMIT = 200

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


class Owner(NamedTuple):
    """Whose claim it is; ``userid`` only where the template writes it into the name."""

    user: str
    server: str
    userid: int | None

    def is_other_than(self, other: Owner) -> bool:
        return (self.user, self.server) != (other.user, other.server)


def refused(name: str, labels: dict[str, str]) -> bool:
    """Whether Kubernetes' rules for names and label values forbid such a claim.

    A name is at most 253 characters, a label's value at most 63, and both begin
    and end with a letter or a digit.
    """
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        return True
    return any(len(v) > 63 or not _LABEL_VALUE.fullmatch(v) for v in labels.values())


def find(tables: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Header and pairs for collisions.json.

    One row per claim name and pair of owners; ``made_by`` lists each
    "release/variant" that gives the name to that owner. Claims that an API
    server would refuse cannot meet another's, and are left out. Rows between two
    users come first, then those between servers of one user; the order is
    otherwise that of the names.
    """
    makers: dict[str, dict[Owner, list[str]]] = defaultdict(lambda: defaultdict(list))
    dropped = 0
    for table in tables:
        header = table["header"]
        for record in table["records"]:
            for variant, made in record["claims"].items():
                if "error" in made:
                    continue
                if refused(made["pvc"], record["labels"]):
                    dropped += 1
                    continue
                template = header["templates"][variant]["pvc_name_template"]
                if record["server"] and "server" not in template:
                    # One claim for all servers of a user, on purpose: the record of
                    # the default server stands for them.
                    continue
                userid = record["userid"] if "{userid}" in template else None
                owner = Owner(record["user"], record["server"], userid)
                maker = f"{header['release']}/{variant}"
                if maker not in makers[made["pvc"]][owner]:
                    makers[made["pvc"]][owner].append(maker)
    rows = []
    for name, owners in makers.items():
        for a, b in combinations(owners, 2):
            if a.is_other_than(b):
                rows.append(describe(name, a, owners[a], b, owners[b]))
    rows.sort(key=lambda row: (row["kind"] == "servers of one user", row["name"]))
    header = {"pairs_found": len(rows), "limit": LIMIT, "claims_an_api_server_refuses": dropped}
    return header, rows[:LIMIT]


def describe(name: str, a: Owner, a_by: list[str], b: Owner, b_by: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "kind": "two users" if a.user != b.user else "servers of one user",
        "a": {**a._asdict(), "made_by": a_by},
        "b": {**b._asdict(), "made_by": b_by},
        "within": [maker for maker in a_by if maker in b_by],
    }
    if a.userid is not None and a.userid == b.userid:
        # Two users of one hub never have one id: this takes a new hub database.
        row["needs"] = "user ids given out anew"
    return row
