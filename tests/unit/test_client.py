"""One request: what is an answer, what is Doubt, and what is never in an error."""

from __future__ import annotations

from functools import partial

import pytest
from kubernetes_asyncio.config import incluster_config, kube_config

from jhub_safety.cluster.client import Answer, ask, connect, expect
from jhub_safety.errors import Conflict, Doubt
from tests.unit import api_server as http
from tests.unit.api_server import TOKEN, api_server


@pytest.fixture
async def server():
    async with api_server() as double:
        yield double


class Clock:
    """Time that passes only while something sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def read(server, **options):
    call = partial(
        server.api.read_namespaced_persistent_volume_claim,
        "claim-a",
        "jupyter",
        _preload_content=False,
    )
    return await ask(call, "reading claim claim-a", **({"timeout": 5.0} | options))


async def test_an_answer_is_status_and_json(server):
    server.answers(http.says(200, {"kind": "PersistentVolumeClaim"}))
    assert await read(server) == Answer(200, {"kind": "PersistentVolumeClaim"})


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404, 409, 410, 422])
async def test_a_settled_status_is_an_answer_and_asked_once(server, status):
    """Whether it is good or bad news: asking again would not change it."""
    server.answers(http.says(status, {"message": "so it is"}))
    answer = await read(server, patience=60.0, sleep=Clock().sleep)
    assert (answer.status, answer.message) == (status, "so it is")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_doubt(server, status):
    server.answers(http.status(status, "Trouble", "etcd leader changed"))
    with pytest.raises(Doubt, match=f"reading claim claim-a: HTTP {status} etcd leader") as doubt:
        await read(server)
    assert (doubt.value.status, doubt.value.retryable) == (status, True)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(http.silence(5), id="no answer in time"),
        pytest.param(http.cut_off(http.pvc("claim-a")), id="cut off in the body"),
        pytest.param(http.hangs_up(), id="connection closed"),
    ],
)
async def test_no_whole_answer_is_retryable_doubt(server, reply):
    server.answers(reply)
    with pytest.raises(Doubt, match="reading claim claim-a") as doubt:
        await read(server, timeout=0.2)
    assert (doubt.value.status, doubt.value.retryable) == (None, True)


async def test_a_body_that_comes_too_slowly_is_doubt(server):
    """The time limit holds for the body too, not only for the headers."""

    async def drip(request):
        response = http.web.StreamResponse()
        await response.prepare(request)
        for _ in range(50):
            await response.write(b" ")
            await http.asyncio.sleep(0.1)
        return response

    server.answers(drip)
    with pytest.raises(Doubt, match=r"no answer within 0\.3 s"):
        await read(server, timeout=0.3)


async def test_nobody_listening_is_doubt(server):
    server.api.api_client.configuration.host = "http://127.0.0.1:9"
    with pytest.raises(Doubt, match="reading claim claim-a"):
        await read(server)


@pytest.mark.parametrize("body", ["", "<html>login</html>", "[1, 2]", '"text"', "null", '{"a":'])
async def test_what_is_no_json_object_has_no_body(server, body):
    server.answers(http.text(200, body))
    assert await read(server) == Answer(200, None)


async def test_bytes_that_are_no_text_have_no_body(server):
    async def reply(_):
        return http.web.Response(body=b"\xff\xfe{}\x00", content_type="application/json")

    server.answers(reply)
    assert (await read(server)).body is None


async def test_passing_errors_are_tried_again_with_growing_pauses(server):
    clock = Clock()
    bad = http.status(503, "ServiceUnavailable")
    server.answers(bad, bad, bad, http.says(200, {"kind": "X"}))
    answer = await read(server, patience=60.0, clock=clock, sleep=clock.sleep)
    assert answer.status == 200
    assert clock.slept == [0.1, 0.2, 0.4]


async def test_pauses_stop_growing_and_patience_ends(server):
    clock = Clock()
    server.answers(http.status(503, "ServiceUnavailable"))
    with pytest.raises(Doubt, match="HTTP 503"):
        await read(server, patience=30.0, clock=clock, sleep=clock.sleep)
    assert max(clock.slept) == 5.0
    assert 24.0 < sum(clock.slept) < 30.0
    assert len(server.requests) == len(clock.slept) + 1


async def test_without_patience_there_is_one_try(server):
    clock = Clock()
    server.answers(http.status(503, "ServiceUnavailable"), http.says(200, {}))
    with pytest.raises(Doubt):
        await read(server, clock=clock, sleep=clock.sleep)
    assert (len(server.requests), clock.slept) == (1, [])


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(http.silence(5), id="time-out"),
        pytest.param(http.hangs_up(), id="closed"),
        pytest.param(http.cut_off(http.pvc("claim-a")), id="cut off"),
        pytest.param(http.status(403, "Forbidden"), id="403"),
        pytest.param(http.status(401, "Unauthorized"), id="401"),
        pytest.param(http.status(500, "InternalError"), id="500"),
        pytest.param(http.text(200, "<html>log in</html>"), id="login page"),
        pytest.param(http.says(409, {"message": "x"}), id="409"),
    ],
)
async def test_no_secret_in_an_error(server, reply):
    """Errors go to logs, events and journals that more people read than may have the token."""
    server.answers(reply)
    with pytest.raises((Doubt, Conflict)) as error:
        expect(await read(server, timeout=2.0), "reading claim claim-a", "PersistentVolumeClaim")
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
    shown: BaseException | None = error.value
    while shown is not None:
        assert TOKEN not in f"{shown} {shown!r}"
        assert "Authorization" not in f"{shown} {shown!r}"
        shown = shown.__cause__


@pytest.mark.parametrize(
    ("answer", "error", "says", "retryable"),
    [
        pytest.param(Answer(409, None), Conflict, "what: conflict", None, id="409"),
        pytest.param(Answer(409, {"message": "exists"}), Conflict, "what: exists", None, id="why"),
        pytest.param(Answer(401, None), Doubt, "what: HTTP 401", False, id="401"),
        pytest.param(Answer(403, {"message": "no"}), Doubt, "what: HTTP 403 no", False, id="403"),
        pytest.param(Answer(404, {}), Doubt, "what: HTTP 404", False, id="404 is no absence here"),
        pytest.param(Answer(410, {}), Doubt, "what: HTTP 410", True, id="410"),
        pytest.param(Answer(302, None), Doubt, "what: HTTP 302", False, id="a redirect"),
        pytest.param(Answer(200, None), Doubt, "the body is no Pod", True, id="200 and garbage"),
        pytest.param(Answer(200, {}), Doubt, "the body is no Pod", True, id="200 without kind"),
        pytest.param(
            Answer(200, {"kind": "Status"}), Doubt, "the body is no Pod", True, id="200 and Status"
        ),
        pytest.param(
            Answer(200, {"kind": "PodList"}), Doubt, "the body is no Pod", True, id="wrong kind"
        ),
    ],
)
def test_what_is_no_positive_answer_is_an_error(answer, error, says, retryable):
    with pytest.raises(error) as raised:
        expect(answer, "what", "Pod")
    assert says in str(raised.value)
    if retryable is not None:
        assert raised.value.retryable is retryable
        assert raised.value.status == (answer.status if answer.status >= 300 else None)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_positive_answer_is_its_body(status):
    assert expect(Answer(status, {"kind": "Pod", "a": 1}), "what", "Pod") == {"kind": "Pod", "a": 1}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, ""),
        ({}, ""),
        ({"message": 5}, ""),
        ({"message": None}, ""),
        ({"message": "x" * 5000}, "x" * 300),
    ],
    ids=["no body", "none", "a number", "null", "endless"],
)
def test_message_is_short_text(body, message):
    assert Answer(500, body).message == message


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters:
- {name: one, cluster: {server: "http://one.invalid"}}
- {name: two, cluster: {server: "http://two.invalid"}}
users: [{name: me, user: {token: me}}]
contexts:
- {name: first, context: {cluster: one, user: me, namespace: team}}
- {name: second, context: {cluster: two, user: me}}
current-context: first
"""


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """A kubeconfig that KUBECONFIG names; kubernetes_asyncio reads that when it is imported."""
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    for name in (incluster_config.SERVICE_HOST_ENV_NAME, incluster_config.SERVICE_PORT_ENV_NAME):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def in_a_pod(tmp_path, monkeypatch):
    """A pod's service account beside whatever else there is."""
    for name, content in (("token", "pods-own"), ("ca.crt", "a certificate")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv(incluster_config.SERVICE_HOST_ENV_NAME, "10.0.0.1")
    monkeypatch.setenv(incluster_config.SERVICE_PORT_ENV_NAME, "443")


@pytest.mark.parametrize(
    ("context", "server", "shown", "namespace"),
    [
        (None, "http://one.invalid", "first", "team"),
        ("second", "http://two.invalid", "second", "default"),
    ],
    ids=["current context", "named context"],
)
async def test_connects_by_kubeconfig(kubeconfig, context, server, shown, namespace):
    async with connect(context) as cluster:
        assert (cluster.server, cluster.context, cluster.namespace) == (server, shown, namespace)


async def test_connects_in_a_pod_as_its_service_account(in_a_pod, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr("jhub_safety.cluster.client._pod_namespace", lambda: "of-the-pod")
    # The certificate of this pod is none; a connection is not what is tested.
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    async with connect() as cluster:
        shown = (cluster.server, cluster.context, cluster.namespace)
    assert shown == ("https://10.0.0.1:443", "in-cluster", "of-the-pod")


@pytest.mark.parametrize(("context", "shown"), [(None, "first"), ("second", "second")])
async def test_an_operators_kubeconfig_wins_over_the_pods_account(
    in_a_pod, kubeconfig, monkeypatch, context, shown
):
    """kubectl exec into the hub's pod, with rights that the hub has not."""
    monkeypatch.setenv(incluster_config.SERVICE_HOST_ENV_NAME, "10.0.0.1")
    monkeypatch.setenv(incluster_config.SERVICE_PORT_ENV_NAME, "443")
    async with connect(context) as cluster:
        assert cluster.context == shown
