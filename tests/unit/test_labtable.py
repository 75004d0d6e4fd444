"""All labs in one table: what is asked of the API server. What is no whole answer is Doubt."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import permutations
from typing import Any

import pytest

from jhub_safety.cluster import labtable
from jhub_safety.cluster.labtable import Row
from jhub_safety.errors import Doubt, SafetyError
from tests.unit import api_server as http
from tests.unit.api_server import TOKEN, ApiServer, api_server

SELECTOR = "component=singleuser-server"
COLUMNS = (
    "Name",
    "Ready",
    "Status",
    "Restarts",
    "Age",
    "IP",
    "Node",
    "Nominated Node",
    "Readiness Gates",
)
ADA = ("jupyter-ada", "2/2", "Running", "0", "5m", "10.88.0.7", "node-1", "<none>", "<none>")
BOB = ("jupyter-bob", "0/1", "Pending", 0, "3s", "<none>", "<none>", "<none>", "<none>")
ROWS = (
    Row("jupyter-ada", "2/2", "Running", "10.88.0.7", "node-1"),
    Row("jupyter-bob", "0/1", "Pending", "<none>", "<none>"),
)


def table(*cells: Any, columns: Any = COLUMNS, **fields: Any) -> dict[str, Any]:
    """As kube-apiserver gives it with ``includeObject=None``."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "4711"},
        "columnDefinitions": [{"name": name, "type": "string"} for name in columns],
        "rows": [{"cells": list(row), "object": None} for row in cells],
    } | fields


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


async def rows(server: ApiServer, namespace: str | None = "jupyter") -> tuple[Row, ...]:
    return await labtable.rows(server.api, namespace, SELECTOR, timeout=1.5)


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("jupyter", "/api/v1/namespaces/jupyter/pods"), (None, "/api/v1/pods")],
    ids=["one namespace", "all"],
)
async def test_one_request_asks_for_the_most_recent_table_without_objects(server, namespace, path):
    server.answers(http.says(200, table(ADA, BOB)))
    assert await rows(server, namespace) == ROWS
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", path)
    # No limit and no resourceVersion: whole, and not from a cache.
    assert request.query == {"labelSelector": SELECTOR, "includeObject": "None"}
    assert request.headers["Accept"] == "application/json;as=Table;g=meta.k8s.io;v=v1"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5], ids=str)
async def test_columns_are_found_by_their_titles(server, order):
    columns = ("Extra", *COLUMNS[:5], "Other", *COLUMNS[5:])
    cells = ("x", *ADA[:5], None, *ADA[5:])
    moved = [*order, *range(4, len(columns))]
    answer = table([cells[n] for n in moved], columns=[columns[n] for n in moved])
    server.answers(http.says(200, answer))
    assert await rows(server) == ROWS[:1]


@pytest.mark.parametrize("none", [[], None], ids=["an empty list", "null"])
async def test_a_namespace_without_labs_is_an_empty_table(server, none):
    server.answers(http.says(200, table(rows=none)))
    assert await rows(server) == ()


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """A whole table with something else at *path*."""
    whole = deepcopy(table(ADA, BOB))
    part: Any = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return whole


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in table(ADA, BOB).items() if name != key}


NOT_WHOLE = {
    "continued": changed(["metadata", "continue"], "abc"),
    "metadata is a list": changed(["metadata"], ["x"]),
    "rows missing": without("rows"),
    "rows are no list": changed(["rows"], 7),
    "rows are an object": changed(["rows"], {"a": 1}),
    "columns missing": without("columnDefinitions"),
    "columns null": changed(["columnDefinitions"], None),
    "no columns": changed(["columnDefinitions"], []),
    "columns without names": changed(["columnDefinitions"], [{"type": "string"}] * 9),
    "a row is null": changed(["rows", 1], None),
    "a row is a text": changed(["rows", 1], "jupyter-bob"),
    "a row without cells": changed(["rows", 1], {}),
    "cells null": changed(["rows", 1, "cells"], None),
    "too few cells": changed(["rows", 1, "cells"], ["jupyter-bob", "0/1"]),
    "no cells": changed(["rows", 1, "cells"], []),
    "a name that is no text": changed(["rows", 1, "cells", 0], 7),
    "a status that is null": changed(["rows", 1, "cells", 2], None),
    "another kind": without("kind") | {"kind": "PodList", "items": []},
    "no kind": without("kind"),
    "a Status": {"kind": "Status", "status": "Success"},
    "an empty object": {},
    "a list": [],
    "null": None,
    **{
        f"no column {title}": table(
            ADA, columns=[f"x{name}" if name == title else name for name in COLUMNS]
        )
        for title in ("Name", "Ready", "Status", "IP", "Node")
    },
}


@pytest.mark.parametrize("case", NOT_WHOLE)
async def test_a_table_that_is_not_whole_is_doubt(server, case):
    server.answers(http.says(200, NOT_WHOLE[case]))
    with pytest.raises(Doubt, match="listing labs in namespace jupyter"):
        await rows(server)


NO_ANSWER = {
    "a login page": http.text(200, "<html>Sign in</html>"),
    "no body": http.text(200, "", "application/json"),
    "half a body": http.cut_off(table(ADA, BOB)),
    "silence": http.silence(3.0),
    "hangs up": http.hangs_up(),
    **{
        f"HTTP {code}": http.status(code, "Nope")
        for code in (301, 400, 401, 403, 404, 406, 410, 429, 500, 502, 503, 504)
    },
}


@pytest.mark.parametrize("case", NO_ANSWER)
async def test_no_answer_is_doubt_and_shows_no_token(server, case):
    server.answers(NO_ANSWER[case])
    with pytest.raises(Doubt) as caught:
        await rows(server)
    assert TOKEN not in str(caught.value)


async def test_a_conflict_is_no_table_either(server):
    server.answers(http.status(409, "Conflict"))
    with pytest.raises(SafetyError):
        await rows(server)


async def test_ten_thousand_labs_are_one_table(server):
    many = [(f"jupyter-{number}", *ADA[1:]) for number in range(10_000)]
    server.answers(http.text(200, json.dumps(table(*many)), "application/json"))
    found = await labtable.rows(server.api, "jupyter", SELECTOR, timeout=20)
    assert [one.name for one in found] == [row[0] for row in many]


# -- metadata


def metadata(name: str = "jupyter-ada", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "jupyter",
        "uid": "uid-1",
        "creationTimestamp": "2026-11-21T12:00:00Z",
        "annotations": {"hub.jupyter.org/username": "ada"},
    } | fields


def partial_list(*items: Any) -> dict[str, Any]:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "items": [{"metadata": item} for item in items],
    }


async def read(server: ApiServer, namespace: str | None = "jupyter") -> tuple[dict[str, Any], ...]:
    return await labtable.metadata(server.api, namespace, "jupyter-ada", timeout=1.5)


@pytest.mark.parametrize(
    ("namespace", "path"),
    [("jupyter", "/api/v1/namespaces/jupyter/pods"), (None, "/api/v1/pods")],
    ids=["one namespace", "all"],
)
async def test_metadata_alone_is_asked_for_by_name(server, namespace, path):
    server.answers(http.says(200, partial_list(metadata())))
    assert await read(server, namespace) == (metadata(),)
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", path)
    assert request.query == {"fieldSelector": "metadata.name=jupyter-ada"}
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert request.headers["Accept"] == accept


@pytest.mark.parametrize(
    "found",
    [(), (metadata(),), (metadata(), metadata(namespace="other", uid="uid-2"))],
    ids=["none", "one", "one in each of two namespaces"],
)
async def test_metadata_of_all_labs_of_the_name_is_given(server, found):
    server.answers(http.says(200, partial_list(*found)))
    assert await read(server, None) == found


@pytest.mark.parametrize(
    "answer",
    [
        http.says(200, partial_list(metadata("jupyter-bob"))),
        http.says(200, partial_list(metadata(), metadata("jupyter-bob"))),
        http.says(200, partial_list(metadata(uid=""))),
        http.says(200, partial_list(metadata(uid=None))),
        http.says(200, partial_list(metadata(namespace=""))),
        http.says(200, partial_list({"name": "jupyter-ada"})),
        http.says(200, partial_list(None)),
        http.says(200, partial_list() | {"items": None}),
        http.says(200, partial_list() | {"items": [{}]}),
        http.says(200, {"kind": "PartialObjectMetadataList"}),
        http.says(200, {"kind": "PodList", "items": []}),
        http.text(200, "<html>"),
        http.cut_off(partial_list(metadata())),
        http.status(403, "Forbidden"),
        http.status(404, "NotFound"),
        http.status(503, "Unavailable"),
        http.silence(3.0),
    ],
    ids=[
        "another lab's",
        "another lab's too",
        "no uid",
        "uid null",
        "no namespace",
        "a name alone",
        "metadata null",
        "items null",
        "an item without metadata",
        "no items",
        "another kind",
        "garbage",
        "half a body",
        "403",
        "404",
        "503",
        "silence",
    ],
)
async def test_metadata_that_is_not_whole_is_doubt(server, answer):
    server.answers(answer)
    with pytest.raises(Doubt, match="reading metadata of lab jupyter-ada"):
        await read(server)
