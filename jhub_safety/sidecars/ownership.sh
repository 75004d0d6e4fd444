# Gives folders to the lab's user. Only what is wrong, and only the folder itself: a home with
# 100,000 files takes no longer. Never fails: a lab that finds its home not writable says so itself.
# Arguments, four for each folder: RULE PATH UID GID. Rules:
#   home    writable for neither UID nor GID
#   root    only while it still belongs to root
#   volume  a database's volume: must be UID's
#   data    a database's folder: must be UID's, and all in it (only the server's own files)
while [ "$#" -ge 4 ]; do
    rule=$1 path=$2 uid=$3 gid=$4
    shift 4
    [ -d "$path" ] && [ ! -L "$path" ] || continue
    # shellcheck disable=SC2046
    set -- $(stat -c '%u %g %a' "$path") "$@"
    owner=$1 group=$2 mode=$3
    shift 3
    case $rule in
    root) [ "$owner" = 0 ] || continue ;;
    home)
        [ "$owner" != "$uid" ] || continue
        # The tens of the mode: what the group may.
        rest=${mode%?}
        if [ "$group" = "$gid" ]; then
            case $rest in *[2367]) continue ;; esac
        fi
        ;;
    *) [ "$owner" != "$uid" ] || continue ;;
    esac
    how=-h
    [ "$rule" != data ] || how=-Rh
    if chown "$how" "$uid:$gid" "$path"; then
        echo "jhub-safety: $path was $owner:$group's ($mode), is now $uid:$gid's"
    else
        echo "jhub-safety: $path is $owner:$group's ($mode) and cannot be given to $uid:$gid;" \
            "on NFS with root squash the file server has to do it"
    fi
done
