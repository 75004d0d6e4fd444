"""The init container that looks for a user's folder before anything mounts one.

The kubelet makes a missing ``subPath`` folder when the container that mounts it starts, and init
containers run one after the other: while this one runs, none has been made. It mounts the root of
the claim, read-only.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubernetes_asyncio import client as kube

from jhub_safety.cluster.labs import InitState
from jhub_safety.volumes.folders import Kind, Mode, Seen

NAME = "jhub-safety-folder"
ROOT = "/jhub-safety-homes"
#: It has looked, and the lab must not go on as it is: the report is in its termination message.
REPORT = 3
#: It could not look.
BLIND = 4
#: Why a container that waits will not run soon (kubelet, images/types.go and kuberuntime).
STUCK = frozenset(
    {
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)

# Arguments: mode, whether an empty root is suspicious (1), names. The report holds one line
# for each name, by its number: names are hostile, and what they hold is never read back.
# "test -d" says no for an error too, so that what "ls" says decides on absence.
SCRIPT = """\
set -u
root=$1 log=$2 mode=$3 had=$4
shift 4
tell() { printf '%s' "$report" > "$log"; exit "$1"; }
report= number=0 first=absent others=0 any=0
for name in "$@"; do
  path=$root rest=$name kind=folder
  while [ -n "$rest" ]; do
    part=${rest%%/*}
    case $rest in */*) rest=${rest#*/} ;; *) rest= ;; esac
    path=$path/$part
    if [ -L "$path" ]; then kind=link; break; fi
    if [ -d "$path" ]; then continue; fi
    said=$(ls -d -- "$path" 2>&1 >/dev/null)
    case $said in
      '') if [ -d "$path" ]; then continue; fi; kind=other ;;
      *': No such file or directory') kind=absent ;;
      *) report="blind $number"; tell 4 ;;
    esac
    break
  done
  report="$report$number $kind
"
  if [ "$number" = 0 ]; then first=$kind; elif [ "$kind" != absent ]; then others=1; fi
  if [ "$kind" != absent ]; then any=1; fi
  number=$((number + 1))
done
if [ "$any" = 0 ]; then
  if ! all=$(ls -A -- "$root" 2>/dev/null); then report='blind root'; tell 4; fi
  if [ "$had" = 1 ] && { [ -z "$all" ] || [ "$all" = lost+found ]; }; then
    report="${report}root empty
"
    [ "$mode" = may ] || tell 3
  fi
fi
case $mode:$first:$others in
  must:folder:* | may:folder:* | may:absent:*) exit 0 ;;
  only:folder:0 | only:absent:0 | none:absent:0) exit 0 ;;
esac
tell 3
"""


def container(
    volume: str, image: str, uid: int, mode: Mode, names: Sequence[str], *, had: bool
) -> kube.V1Container:
    """Looks for *names* on *volume*, the one to be mounted first.

    *had*: this hub has had homes there, so that an empty root is a wrong one.
    """
    # Kubernetes itself replaces $(VAR) in arguments.
    words = [name.replace("$", "$$") for name in names]
    return kube.V1Container(
        name=NAME,
        image=image,
        image_pull_policy="IfNotPresent",
        command=["sh", "-c", SCRIPT, "look", ROOT, "/dev/termination-log"],
        args=[str(mode), str(int(had)), *words],
        # The words of an error are compared.
        env=[kube.V1EnvVar(name="LC_ALL", value="C")],
        resources=kube.V1ResourceRequirements(
            requests={"cpu": "10m", "memory": "16Mi"}, limits={"cpu": "500m", "memory": "64Mi"}
        ),
        security_context=kube.V1SecurityContext(
            run_as_user=uid,
            run_as_non_root=uid != 0,
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=kube.V1Capabilities(drop=["ALL"]),
            seccomp_profile=kube.V1SeccompProfile(type="RuntimeDefault"),
        ),
        volume_mounts=[kube.V1VolumeMount(name=volume, mount_path=ROOT, read_only=True)],
    )


def over(state: InitState | None) -> bool:
    """True when the lab will not go on by itself. Exit code 0: it goes on."""
    if state is None or state.exit_code == 0:
        return False
    return state.exit_code is not None or state.waiting in STUCK


def understand(state: InitState, names: Sequence[str]) -> Seen:
    """What it found. Anything that is no whole report is a fault."""
    if state.exit_code is None:
        return Seen(fault=f"its container cannot run ({state.waiting or 'no reason given'})")
    if state.exit_code == BLIND:
        return Seen(fault="the claim's root, or what lies there, cannot be looked at")
    if state.exit_code != REPORT:
        return Seen(fault=f"its container ended with exit code {state.exit_code}")
    kinds: dict[str, Kind] = {}
    empty = False
    for line in state.message.splitlines():
        number, _, kind = line.partition(" ")
        if (number, kind) == ("root", "empty"):
            empty = True
        elif number.isascii() and number.isdigit() and int(number) < len(names) and kind in _KINDS:
            kinds[names[int(number)]] = Kind(kind)
        else:
            return Seen(fault="its container's report is not readable")
    if set(kinds) != set(names):
        return Seen(fault="its container's report is not whole")
    return Seen(kinds, empty)


_KINDS = frozenset(map(str, Kind))
