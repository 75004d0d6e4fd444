"""What is added to a pod: in a form that Kubernetes knows to the last key, and nothing replaced."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes_asyncio import client as kube
from kubespawner.objects import make_pod

from jhub_safety.databases import _is_alone
from jhub_safety.sidecars.ownership import Folder
from jhub_safety.sidecars.pod import (
    ANNOTATION,
    LAB_SECONDS,
    LABEL,
    Beside,
    add_ownership,
    add_servers,
    folders,
    objection,
    who,
)
from jhub_safety.sidecars.server import parse_servers
from tests.unit.wire_form import RECIPE, pod_of, unknown_keys, wire

HOME_CLAIM = "claim-ada"
HOME = {"name": "home", "persistentVolumeClaim": {"claimName": HOME_CLAIM}}
HOME_MOUNT = {"name": "home", "mountPath": "/home/jovyan"}
OURS = "jhub-safety-"
POSTGRES = {"kind": "postgres"}
SECOND = {"kind": "postgres", "name": "second", "port": 5433}
#: One of each form that an entry can have.
ENTRIES = [
    POSTGRES,
    SECOND | {"run_as": "image", "mount_home": False, "required": True},
    {"kind": "mariadb", "run_as": 1234, "startup": "container", "args": ["--max-connections=5"]},
]


def lab(**keys):
    """A pod as KubeSpawner makes it, with these settings of its own."""
    given_keys = {"volumes": [HOME], "volume_mounts": [HOME_MOUNT], "uid": 1000, "gid": 100}
    return make_pod("lab", ["jupyterhub-singleuser"], 8888, "lab:1", **(given_keys | keys))


def beside(*entries, native=True):
    return [
        Beside(server, f"{server.name}-ada", native)
        for server in parse_servers(entries or [POSTGRES])
    ]


def whom(pod):
    return who(pod, HOME_CLAIM, "/home/jovyan")


def filled(pod, *entries, native=True, root=True, shared=()):
    """The pod with servers and ownership, as DatabasesMixin puts them in; as the API gets it."""
    servers = beside(*entries, native=native)
    owner = whom(pod)
    add_servers(pod, servers, owner)
    add_ownership(pod, folders(pod, servers, owner, shared), "busybox", "Always", root=root)
    return wire(pod)


def named(items, name):
    return next(one for one in items if one["name"] == name)


def server_of(pod, name="jhub-safety-postgres"):
    spec = pod["spec"]
    return named([*spec["containers"], *spec.get("initContainers", [])], name)


def values(container):
    return {one["name"]: one.get("value") for one in container["env"]}


# -- no key that Kubernetes would drop


def test_the_recipe_that_loses_the_data_is_what_this_looks_for():
    pod = wire(lab(extra_containers=[RECIPE]))
    assert unknown_keys(pod, "V1Pod") == {
        "spec.containers[1].env[1].securityContext",
        "spec.containers[1].env[1].volumeMounts",
    }


@pytest.mark.parametrize("native", [True, False], ids=["native", "container"])
@pytest.mark.parametrize("root", [True, False], ids=["root", "fsGroup"])
@pytest.mark.parametrize(
    "entries",
    [*([one] for one in ENTRIES), ENTRIES],
    ids=["postgres", "image's uid", "mariadb", "all together"],
)
def test_kubernetes_knows_every_key_that_is_written(entries, native, root):
    assert unknown_keys(filled(lab(), *entries, native=native, root=root), "V1Pod") == set()


def test_the_data_is_on_the_claim_and_the_server_runs_as_whom_it_belongs_to():
    """The very three things that the recipe loses."""
    pod = filled(lab())
    server = server_of(pod)
    volume = named(pod["spec"]["volumes"], "jhub-safety-postgres")
    mount = named(server["volumeMounts"], "jhub-safety-postgres")
    assert volume["persistentVolumeClaim"] == {"claimName": "postgres-ada"}
    assert values(server)["PGDATA"].startswith(mount["mountPath"] + "/")
    assert server["securityContext"]["runAsUser"] == 1000


# -- nothing of the hub's own is replaced


#: A pod has many parts, and the machine may be busy: how long an example takes says nothing.
unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["a", "b-c", "home", "postgres", "x0", "jhub-safetyx"])
variables = st.dictionaries(
    st.sampled_from(["PGHOST", "PGUSER", "MYSQL_HOST", "HOME", "LANG", "Z"]),
    st.text("ab {}$", max_size=6)
    | st.just({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
    max_size=4,
).map(
    # As KubeSpawner wants it: a dictionary of a variable names it once more.
    lambda found: {
        key: value | {"name": key} if isinstance(value, dict) else value
        for key, value in found.items()
    }
)
mounts = st.lists(
    st.fixed_dictionaries(
        {"name": names, "mountPath": names.map(lambda one: f"/mnt/{one}")},
        optional={
            "readOnly": st.booleans(),
            "subPath": names,
            "mountPropagation": st.just("None"),
        },
    ),
    max_size=3,
)
contexts = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.integers(0, 2000),
        "runAsGroup": st.integers(0, 2000),
        "seccompProfile": st.just({"type": "RuntimeDefault"}),
        "capabilities": st.just({"drop": ["ALL"]}),
    },
)
containers = st.lists(
    st.fixed_dictionaries(
        {"name": names.map("own-{}".format), "image": st.just("x:1")},
        optional={
            "command": st.lists(st.text(max_size=3), max_size=2),
            "ports": st.lists(
                st.fixed_dictionaries({"containerPort": st.integers(6000, 7000)}), max_size=2
            ),
            "securityContext": contexts,
            "volumeMounts": mounts,
            "restartPolicy": st.just("Always"),
            "env": st.just([{"name": "A", "value": "b"}]),
        },
    ),
    max_size=3,
    unique_by=lambda one: one["name"],
)


@st.composite
def hubs_own(draw):
    """Settings of a hub, as KubeSpawner hands them to make_pod."""
    extra_pod = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "shareProcessNamespace": st.booleans(),
                "terminationGracePeriodSeconds": st.integers(0, 300),
                "hostAliases": st.just([{"ip": "10.0.0.1", "hostnames": ["files"]}]),
                "dnsPolicy": st.just("ClusterFirst"),
            },
        )
    )
    raw = draw(containers)
    if draw(st.booleans()) and raw:
        # Put there as it is: dictionaries in a model.
        extra_pod["initContainers"] = raw
    return {
        "volumes": [
            HOME,
            *({"name": f"own-{one}", "emptyDir": {}} for one in draw(st.sets(names))),
        ],
        "volume_mounts": [HOME_MOUNT, *draw(mounts)],
        "uid": draw(st.none() | st.integers(1, 70000)),
        "gid": draw(st.none() | st.integers(1, 70000)),
        "fs_gid": draw(st.none() | st.integers(1, 70000)),
        "pod_security_context": draw(st.just({}) | contexts),
        "container_security_context": draw(st.just({}) | contexts),
        "labels": draw(st.dictionaries(names, names, max_size=2)),
        "annotations": draw(st.dictionaries(names, st.text(max_size=5), max_size=2)),
        "env": draw(variables),
        "init_containers": draw(containers),
        "extra_containers": draw(containers),
        "extra_pod_config": extra_pod,
        "extra_container_config": draw(
            st.just({}) | st.just({"env": [{"name": "PGHOST", "value": "elsewhere"}]})
        ),
        "lifecycle_hooks": draw(st.just({}) | st.just({"preStop": {"exec": {"command": ["x"]}}})),
    }


def without_ours(pod, before):
    """The pod without what this library may add, which is only these."""
    rest = copy.deepcopy(pod)
    spec, metadata = rest["spec"], rest["metadata"]
    for key in ("containers", "initContainers", "volumes"):
        kept = [one for one in spec.get(key, []) if not one["name"].startswith("jhub-safety-")]
        spec[key] = kept
        if not kept and key not in before["spec"]:
            del spec[key]
    del metadata["annotations"][ANNOTATION], metadata["labels"][LABEL]
    for key in ("annotations", "labels"):
        if not metadata[key] and key not in before["metadata"]:
            del metadata[key]
    notebook, earlier = (named(one["spec"]["containers"], "notebook") for one in (rest, before))
    have = earlier.get("env", [])
    assert notebook["env"][: len(have)] == have
    added = {one["name"] for one in notebook["env"][len(have) :]}
    assert not added & {one["name"] for one in have}
    notebook["env"] = have
    if "env" not in earlier:
        del notebook["env"]
    grace = spec.pop("terminationGracePeriodSeconds")
    earlier_grace = before["spec"].get("terminationGracePeriodSeconds")
    assert grace >= max(earlier_grace or 0, LAB_SECONDS)
    if earlier_grace is not None:
        spec["terminationGracePeriodSeconds"] = earlier_grace
    return rest


@unhurried
@given(hub=hubs_own(), native=st.booleans(), entries=st.sampled_from([ENTRIES, [POSTGRES]]))
def test_whatever_a_hub_has_in_its_pods_is_still_there_and_as_it_was(hub, native, entries):
    pod = lab(**hub)
    before = wire(pod)
    after = filled(pod, *entries, native=native)
    assert without_ours(after, before) == before


@unhurried
@given(hub=hubs_own(), native=st.booleans())
def test_names_in_a_pod_are_not_used_twice(hub, native):
    spec = filled(lab(**hub), *ENTRIES, native=native)["spec"]
    ours = [
        one["name"]
        for key in ("containers", "initContainers", "volumes")
        for one in spec.get(key, [])
        if one["name"].startswith("jhub-safety-")
    ]
    of_containers = [one for one in ours if one not in {v["name"] for v in spec["volumes"]}]
    volumes = [one["name"] for one in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    assert of_containers == ["jhub-safety-ownership"]


@unhurried
@given(hub=hubs_own())
def test_where_root_is_refused_only_an_fs_group_is_added(hub):
    pod = lab(**hub)
    before = wire(pod)
    owner = whom(pod)
    folder = Folder("home", "/home/jovyan", 5, 77, HOME_MOUNT)
    add_ownership(pod, [folder], "busybox", "Always", root=False)
    after = wire(pod)
    mine = before["spec"].setdefault("securityContext", {})
    added = {} if mine.get("fsGroup") else {"fsGroupChangePolicy": "OnRootMismatch"}
    assert after["spec"]["securityContext"] == {
        **added,
        **mine,
        "fsGroup": mine.get("fsGroup") or 77,
    }
    after["spec"]["securityContext"] = mine
    assert after == before
    assert owner.uid > 0


# -- the order of things


def test_folders_are_given_away_first_and_a_native_server_comes_after_the_hubs_own():
    own = {"name": "own", "image": "x:1"}
    pod = filled(lab(init_containers=[own]))
    assert [one["name"] for one in pod["spec"]["initContainers"]] == [
        "jhub-safety-ownership",
        "own",
        "jhub-safety-postgres",
    ]
    assert [one["name"] for one in pod["spec"]["containers"]] == ["notebook"]
    assert server_of(pod)["restartPolicy"] == "Always"


def test_an_ordinary_container_comes_last():
    pod = filled(lab(extra_containers=[{"name": "own", "image": "x:1"}]), native=False)
    assert [one["name"] for one in pod["spec"]["containers"]] == [
        "notebook",
        "own",
        "jhub-safety-postgres",
    ]
    assert "restartPolicy" not in server_of(pod)


def test_the_hubs_arguments_come_between_ours():
    args = server_of(filled(lab(), POSTGRES | {"args": ["-c", "work_mem=8MB"]}))["args"]
    ours = ["-c", "listen_addresses=127.0.0.1", "-c", "port=5432"]
    assert args == ["docker-entrypoint.sh", "postgres", *ours, "-c", "work_mem=8MB", *ours]


@pytest.mark.parametrize(
    ("entries", "own", "wanted"),
    [
        pytest.param([POSTGRES], None, 60, id="one server"),
        pytest.param([POSTGRES, SECOND], None, 90, id="two servers"),
        pytest.param([POSTGRES | {"stop_seconds": 5}], 1, 35, id="more than the hub's own"),
        pytest.param([POSTGRES], 600, 600, id="the hub's own is longer"),
    ],
)
def test_a_pod_has_time_to_end(entries, own, wanted):
    config = {} if own is None else {"terminationGracePeriodSeconds": own}
    pod = filled(lab(extra_pod_config=config), *entries)
    assert pod["spec"]["terminationGracePeriodSeconds"] == wanted


# -- what the lab finds


def test_the_labs_programs_find_each_server():
    notebook = named(filled(lab(), *ENTRIES[::2])["spec"]["containers"], "notebook")
    assert (
        values(notebook).items()
        >= {
            "PGHOST": "127.0.0.1",
            "PGPORT": "5432",
            "PGUSER": "jovyan",
            "PGDATABASE": "jovyan",
            "MYSQL_HOST": "127.0.0.1",
            "MYSQL_TCP_PORT": "3306",
        }.items()
    )


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({"env": {"PGHOST": "files.example.org"}}, id="environment"),
        pytest.param(
            {"extra_container_config": {"env": [{"name": "PGHOST", "value": "files.example.org"}]}},
            id="extra_container_config",
        ),
    ],
)
def test_a_variable_that_the_hub_has_set_is_left_alone(own):
    notebook = named(filled(lab(**own))["spec"]["containers"], "notebook")
    said = [one["value"] for one in notebook["env"] if one["name"] == "PGHOST"]
    assert said == ["files.example.org"]
    assert values(notebook)["PGPORT"] == "5432"


def test_of_two_servers_of_a_kind_the_first_is_what_programs_find():
    notebook = named(filled(lab(), POSTGRES, SECOND)["spec"]["containers"], "notebook")
    assert values(notebook)["PGPORT"] == "5432"
    assert len(notebook["env"]) == len({one["name"] for one in notebook["env"]})


def test_the_pod_says_which_databases_it_has():
    pod = filled(lab(), *ENTRIES)
    assert json.loads(pod["metadata"]["annotations"][ANNOTATION]) == [
        "postgres",
        "second",
        "mariadb",
    ]


def test_the_servers_settings_are_its_own_and_the_keepers_come_last():
    env = values(server_of(filled(lab(), POSTGRES | {"env": {"TZ": "UTC"}})))
    assert (env["TZ"], env["JHS_DATA"]) == ("UTC", "/var/lib/jhub-safety/postgres/data")


@pytest.mark.parametrize("alone", [True, False])
def test_the_keeper_is_told_whether_another_pod_can_have_the_volume(alone):
    pod = lab()
    add_servers(pod, [replace(one, alone=alone) for one in beside()], whom(pod))
    assert values(server_of(wire(pod)))["JHS_ALONE"] == ("1" if alone else "0")


@pytest.mark.parametrize(
    ("entry", "alone"),
    [
        pytest.param({}, True, id="as it comes"),
        pytest.param({"claim": "pg-{user_server}"}, True, id="a claim for each server"),
        pytest.param({"claim": "pg-{username}"}, False, id="a claim for a user's servers"),
        pytest.param({"claim": "pg-{user_slug}-{user_hash}"}, False, id="the same by hash"),
        pytest.param({"access_modes": ["ReadWriteOncePod"]}, True, id="one pod"),
        pytest.param({"access_modes": ["ReadWriteMany"]}, False, id="every node"),
        pytest.param(
            {"access_modes": ["ReadWriteOnce", "ReadOnlyMany"]}, False, id="every node, to read"
        ),
    ],
)
def test_whether_another_pod_can_have_a_claim(entry, alone):
    (server,) = parse_servers([POSTGRES | entry])
    assert _is_alone(server) is alone


# -- as whom, and which folders


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        pytest.param({"uid": 1000, "gid": 100}, (1000, 100), id="as KubeSpawner is told"),
        pytest.param({"uid": None, "gid": None}, (1000, 100), id="nothing is said"),
        pytest.param({"uid": 0, "gid": 0}, (1000, 100), id="root, that steps down"),
        pytest.param(
            {"uid": 0, "gid": 0, "env": {"NB_UID": "5000", "NB_GID": "50"}},
            (5000, 50),
            id="root, that steps down to whom it is told",
        ),
        pytest.param(
            {"uid": 0, "gid": 7, "env": {"NB_UID": "0x5", "NB_GID": ""}},
            (1000, 7),
            id="root, with variables that are no numbers",
        ),
        pytest.param(
            {"uid": 1001, "env": {"NB_UID": "5000", "NB_GID": "50"}},
            (1001, 100),
            id="variables that nobody looks at",
        ),
        pytest.param(
            {
                "uid": 0,
                "gid": None,
                "extra_container_config": {"env": [{"name": "NB_UID", "valueFrom": {}}]},
            },
            (1000, 100),
            id="root, with a variable that is not known here",
        ),
        pytest.param(
            {
                "uid": None,
                "gid": None,
                "container_security_context": {"runAsUser": 0},
                "pod_security_context": {"runAsUser": 8},
            },
            (1000, 100),
            id="root, said of the container, which counts more",
        ),
        pytest.param({"uid": 5, "gid": None, "fs_gid": 7}, (5, 7), id="by fsGroup"),
        pytest.param(
            {"uid": None, "gid": None, "pod_security_context": {"runAsUser": 8, "runAsGroup": 9}},
            (8, 9),
            id="said of the pod",
        ),
        pytest.param(
            {
                "uid": None,
                "container_security_context": {"runAsUser": 3},
                "pod_security_context": {"runAsUser": 8},
            },
            (3, 100),
            id="said of the container, which counts more",
        ),
    ],
)
def test_a_server_runs_as_its_lab(own, wanted):
    pod = lab(**own)
    assert (whom(pod).uid, whom(pod).gid) == wanted
    context = server_of(filled(pod))["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == wanted


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        pytest.param({"uid": 1000}, "home", id="a uid"),
        pytest.param({"uid": 0, "env": {"NB_UID": "5000"}}, "home", id="whom root steps down to"),
        pytest.param({"uid": None}, "guess", id="nothing is said"),
        pytest.param({"uid": 0}, "guess", id="root, and nothing more is said"),
    ],
)
def test_a_home_is_taken_from_nobody_when_the_labs_account_is_only_guessed(own, rule):
    """Seen: an image's own account 1001, which could no more enter its home of mode 0700."""
    made = named(filled(lab(**own))["spec"]["initContainers"], "jhub-safety-ownership")
    assert [one[0] for one in given_folders(made)] == [rule, "volume", "data"]


@pytest.mark.parametrize(
    ("run_as", "uid", "gives"),
    [
        pytest.param("lab", 1000, True, id="the lab's"),
        pytest.param(4321, 4321, True, id="a uid"),
        pytest.param("image", 0, False, id="the image's own begins as root"),
    ],
)
def test_the_data_belongs_to_whom_the_server_runs_as(run_as, uid, gives):
    pod = filled(lab(), POSTGRES | {"run_as": run_as})
    server, context = server_of(pod), server_of(pod)["securityContext"]
    assert context["runAsUser"] == uid
    assert context["capabilities"]["drop"] == ["ALL"]
    made = named(pod["spec"]["initContainers"], "jhub-safety-ownership")
    shown = named(server["volumeMounts"], "jhub-safety-postgres")["mountPath"]
    given_away = [one for one in given_folders(made) if one[0] in ("volume", "data")]
    if not gives:
        assert given_away == []
        return
    mount = named(made["volumeMounts"], "jhub-safety-postgres")["mountPath"]
    assert given_away == [
        ["volume", mount, str(uid), "100", shown],
        ["data", f"{mount}/data", str(uid), "100", f"{shown}/data"],
    ]


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        pytest.param({}, [HOME_MOUNT], id="its claim"),
        pytest.param(
            {"volume_mounts": [HOME_MOUNT, HOME_MOUNT | {"mountPath": "/b", "subPath": "b"}]},
            [HOME_MOUNT, HOME_MOUNT | {"mountPath": "/b", "subPath": "b"}],
            id="its claim, at two places",
        ),
        pytest.param(
            {"volumes": [{"name": "home", "nfs": {"server": "x", "path": "/"}}]},
            [HOME_MOUNT],
            id="a file system of everybody's, by the path",
        ),
        pytest.param({"volumes": [], "volume_mounts": []}, [], id="no home"),
        pytest.param(
            {"volume_mounts": [HOME_MOUNT | {"subPathExpr": "$(JUPYTERHUB_USER)"}]},
            [],
            id="a path of the lab's variables, which the server has not",
        ),
    ],
)
def test_the_home_is_in_the_servers_container_where_it_is_in_the_labs(own, wanted):
    server = server_of(filled(lab(**own)))
    assert [one for one in server["volumeMounts"] if one["name"] == "home"] == wanted


def test_a_hub_may_leave_the_home_out():
    server = server_of(filled(lab(), POSTGRES | {"mount_home": False}))
    assert "home" not in [one["name"] for one in server["volumeMounts"]]


def test_nothing_but_the_folders_to_give_away_is_mounted_for_root():
    pod = lab(
        volumes=[HOME, {"name": "shared", "emptyDir": {}}, {"name": "secret", "emptyDir": {}}],
        volume_mounts=[
            HOME_MOUNT,
            {"name": "shared", "mountPath": "/shared"},
            {"name": "secret", "mountPath": "/secret"},
        ],
    )
    made = named(filled(pod, shared=["/shared"])["spec"]["initContainers"], "jhub-safety-ownership")
    assert [one["name"] for one in made["volumeMounts"]] == [
        "home",
        "shared",
        "jhub-safety-postgres",
    ]
    assert made["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
    }


@pytest.mark.parametrize(
    "shared", [[], ["/not/there"]], ids=["none named", "one that is not there"]
)
def test_what_is_mounted_read_only_or_not_at_all_is_not_given_away(shared):
    pod = lab(volume_mounts=[HOME_MOUNT | {"readOnly": True}])
    made = named(filled(pod, shared=shared)["spec"]["initContainers"], "jhub-safety-ownership")
    assert [one["name"] for one in made["volumeMounts"]] == ["jhub-safety-postgres"]


def given_folders(container):
    """RULE PATH UID GID NAME of each."""
    args = container["args"]
    return [args[i : i + 5] for i in range(0, len(args), 5)]


def below(paths):
    """Those that are in another one."""
    return {one for one in paths for other in paths if other in PurePosixPath(one).parents}


def mount_points(container):
    paths = [PurePosixPath(one["mountPath"]) for one in container["volumeMounts"]]
    assert len(paths) == len(set(paths))
    return paths


#: Mostly one inside another, as a hub has its shared folders in homes.
nested = st.lists(
    st.lists(st.sampled_from(["home", "jovyan", "shared", "var", "lib"]), min_size=1, max_size=5)
    .map("/".join)
    .map("/{}".format),
    min_size=1,
    max_size=6,
    unique=True,
)


@unhurried
@given(paths=nested, data=st.data())
def test_no_folder_is_mounted_in_another_where_a_link_could_lead_it_elsewhere(paths, data):
    """``rm ~/shared; ln -s /bin ~/shared`` put the user's own "sh" before root's."""
    volume = st.sampled_from(["home", "shared"])
    mounted = [
        {"name": data.draw(volume), "mountPath": path}
        | data.draw(st.just({}) | st.just({"subPath": "sub"}))
        for path in paths
    ]
    pod = lab(volumes=[HOME, {"name": "shared", "emptyDir": {}}], volume_mounts=mounted)
    made = filled(pod, POSTGRES | {"run_as": "image"}, SECOND, shared=paths)
    server = server_of(made)
    found = [one for one in made["spec"].get("initContainers", []) if one["name"].startswith(OURS)]
    assert found
    for container in found:
        assert below(mount_points(container)) == set()
    # What is the server's own stays, whatever the home is in the way of.
    assert {"/var/lib/jhub-safety/postgres", "/run/jhub-safety"} <= {
        one["mountPath"] for one in server["volumeMounts"]
    }
    giver = named(found, "jhub-safety-ownership")
    sources = {one["mountPath"]: one["name"] for one in giver["volumeMounts"]}
    asked = {one["mountPath"]: one["name"] for one in mounted}
    told = {name: sources[path] for rule, path, *_, name in given_folders(giver) if rule != "data"}
    # Each of them all the same, called as the lab calls it.
    assert {name: one for name, one in told.items() if name in asked} == asked


def test_a_folder_of_the_labs_variables_is_not_mounted_for_root():
    shared = {"name": "shared", "mountPath": "/shared", "subPathExpr": "$(JUPYTERHUB_USER)"}
    pod = lab(
        volumes=[HOME, {"name": "shared", "emptyDir": {}}], volume_mounts=[HOME_MOUNT, shared]
    )
    made = named(filled(pod, shared=["/shared"])["spec"]["initContainers"], "jhub-safety-ownership")
    assert "shared" not in [one["name"] for one in made["volumeMounts"]]


# -- refused


@pytest.mark.parametrize(
    ("own", "told"),
    [
        pytest.param({"extra_pod_config": {"hostNetwork": True}}, "hostNetwork", id="camel case"),
        pytest.param({"extra_pod_config": {"host_network": True}}, "hostNetwork", id="snake case"),
        pytest.param(
            {"extra_containers": [{"name": "p", "ports": [{"containerPort": 5432}]}]},
            "container p declares port 5432, which is that of the database postgres",
            id="a container declares the port",
        ),
        pytest.param(
            {
                "extra_containers": [
                    {"name": "p", "ports": [{"containerPort": 1, "hostPort": 5432}]}
                ]
            },
            "",
            id="a port of the node is another matter",
        ),
        pytest.param(
            {"init_containers": [{"name": "p", "ports": [{"containerPort": 5432}]}]},
            "container p declares port 5432",
            id="a native sidecar does",
        ),
        pytest.param(
            {"extra_container_config": {"ports": [{"containerPort": 5432}]}},
            "container notebook declares port 5432",
            id="the lab itself does",
        ),
        pytest.param(
            {"extra_containers": [{"name": "jhub-safety-postgres"}]},
            "there is a container or volume jhub-safety-postgres already",
            id="the name of the container is taken",
        ),
        pytest.param(
            {"volumes": [{"name": "jhub-safety-state", "emptyDir": {}}]},
            "there is a container or volume jhub-safety-state already",
            id="the name of a volume is taken",
        ),
        pytest.param({"extra_pod_config": {"hostNetwork": False}}, "", id="nothing wrong"),
        pytest.param(
            {"extra_containers": [{"name": "p", "ports": [{"containerPort": 80}]}]},
            "",
            id="another port",
        ),
    ],
)
def test_a_pod_that_would_show_the_database_to_others_is_refused(own, told):
    why = objection(lab(**own), parse_servers([POSTGRES]))
    assert (told in why) if told else not why


def test_without_a_database_nothing_is_refused():
    assert objection(lab(extra_pod_config={"hostNetwork": True}), ()) == ""


def test_a_pod_that_was_filled_is_recognised_by_kubernetes_models():
    """What the API answers, read back into models, is what was sent."""
    pod = filled(lab(), *ENTRIES)
    assert wire(pod_of(pod)) == pod
    assert isinstance(pod_of(pod), kube.V1Pod)
