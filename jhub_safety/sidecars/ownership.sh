# Gives folders to the lab's user. Only what is wrong, and only the folder itself: a home with
# 100,000 files takes no longer. Never fails: a lab that finds its home not writable says so itself.
# Arguments, five for each folder: RULE PATH UID GID NAME, the last one for what is said. Rules:
#   home    writable for neither UID nor GID
#   guess   a home while nobody but root can write to it: UID is not known to be the user's
#   root    only while it still belongs to root
#   volume  a database's volume: must be UID's
#   data    a database's folder in it: must be UID's, and all in it (only the server's own files)
#
# It runs as root over folders into which the user's own programs write, those of another lab of the
# same user also at this moment. So it never goes by a path twice: it enters a folder, looks where
# it has come to, and changes names in the working directory only, never what a link points to.
info=${JHS_MOUNTINFO:-/proc/self/mountinfo}

say() { echo "jhub-safety: $*"; }

# How many mounts are at $1, and how many are below it. Each folder has a path of its own, in which
# nothing is mounted. Where it is otherwise something has led a mount to elsewhere: over a database's
# folder, say, which then is other people's.
count_mounts() {
    at=0 below=0
    while read -r _ _ _ _ point _; do
        case $point in
        "$1") at=$((at + 1)) ;;
        "$1"/*) below=$((below + 1)) ;;
        esac
    done <"$info"
}

# Whether the folder at $1 may be what it should be.
as_mounted() {
    case $rule in
    volume | data)
        volume=$1
        [ "$rule" = volume ] || volume=${1%/*}
        count_mounts "$volume"
        [ "$at" = 1 ] && [ "$below" = 0 ]
        ;;
    *)
        count_mounts "$1"
        # None: it is a folder in what somebody may write to, who may have put it there.
        [ "$at" = 1 ]
        ;;
    esac
}

is_right() {
    case $rule in
    root) [ "$owner" != 0 ] ;;
    guess)
        [ "$owner" = 0 ] || return 0
        # The last two of the mode: what the group and all others may.
        case $mode in *[2367] | *[2367]?) true ;; *) false ;; esac
        ;;
    home)
        [ "$owner" != "$uid" ] || return 0
        # The tens of the mode: what the group may.
        rest=${mode%?}
        [ "$group" = "$gid" ] && case $rest in *[2367]) true ;; *) false ;; esac
        ;;
    *) [ "$owner" = "$uid" ] ;;
    esac
}

number() { stat -c '%d:%i' "$1" 2>/dev/null; }

# What is in the working directory, and in the folders in it.
give_all() {
    find . ! -name . -prune ! -user "$uid" -exec chown -h "$uid:$gid" {} + || return 1
    for entry in ./* ./.[!.]* ./..?*; do
        [ -d "$entry" ] && [ ! -L "$entry" ] || continue
        (
            parent=$(number .)
            cd -P "$entry" 2>/dev/null || exit 0
            # Not there any more: a link was put in its place.
            [ -n "$parent" ] && [ "$(number ..)" = "$parent" ] || exit 0
            give_all
        ) || return 1
    done
}

give() {
    path=${1%/}
    [ -d "$path" ] && [ ! -L "$path" ] || return 0
    if ! as_mounted "$path" || ! cd -P "$path" 2>/dev/null || [ "$(pwd -P)" != "$path" ]; then
        say "$shown was left as it is: something else is mounted there, or a link leads to it"
        return 0
    fi
    # shellcheck disable=SC2046
    set -- $(stat -c '%u %g %a' .)
    owner=$1 group=$2 mode=$3
    ! is_right || return 0
    # Its own name last: when this is cut off in between, the next start does the rest.
    if { [ "$rule" != data ] || give_all; } &&
        { [ "$rule" != volume ] || give_ours; } && chown -h "$uid:$gid" .; then
        say "$shown was $owner:$group's ($mode), is now $uid:$gid's"
    else
        say "$shown is $owner:$group's ($mode) and cannot be given to $uid:$gid;" \
            "on NFS with root squash the file server has to do it"
    fi
}

# What the keeper has in the volume beside the data.
give_ours() {
    for entry in ./.jhub-safety-*; do
        [ ! -e "$entry" ] || chown -h "$uid:$gid" "$entry" || return 1
    done
}

while [ "$#" -ge 5 ]; do
    rule=$1 uid=$3 gid=$4 shown=$5
    (give "$2")
    shift 5
done
exit 0
