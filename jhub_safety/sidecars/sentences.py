"""What people are told of a database's troubles: a sentence for its user, one for the operator.

A gap with a number is filled with a word of the keeper's; the others are those of
:meth:`~jhub_safety.sidecars.notice.Where.words`.
"""

from __future__ import annotations

#: What the keeper says by itself: for the user, and for the operator.
TOLD = {
    "version": (
        (
            "its data was written by version {0} of the server, and this is version {1}. The data "
            "is untouched"
        ),
        ("set the image back to version {0}, or move the data across: {upgrade}"),
    ),
    "disk-full": (
        (
            "its volume is full ({0} of {1} used). The reserve has been given to it, so that rows "
            "can be deleted: do that now, or ask for a larger volume"
        ),
        (
            "let rows be deleted, or enlarge capacity ({capacity}) of the entry in databases; the "
            "volume grows at the user's next start: kubectl -n {namespace} get pvc {claim}"
        ),
    ),
    "half-made": (
        (
            "its very first start had been cut off. It was set up again; what was half made is "
            "kept beside it"
        ),
        "nothing; the folder with the ending .half-made in the claim can go",
    ),
    "half-made-again": (
        "its first start was cut off more than once. Nothing was stored in it yet",
        "see why, and move the folder with the ending .half-made out of the way: {log} --previous",
    ),
    "unknown-data": (
        (
            "its folder holds something that is no data of such a server, or is incomplete. It was "
            "left as it is"
        ),
        "look at the folder; restore it from a backup, or move it aside for a new, empty database",
    ),
    "missing-data": (
        (
            "its data folder is empty or gone, though its volume holds other data or has held "
            "some. No new one was put in its place"
        ),
        (
            "bring the folder back, or set folder of the entry in databases; for a new, empty "
            "database see docs: Databases, missing-data"
        ),
    ),
    "link": (
        "a link stands where its data or one of its files should be. Nothing was followed",
        "look at the claim, and move the link out of the way",
    ),
    "permission": (
        "its folder cannot be written to. The data is untouched",
        "turn SafeKubeSpawner.ownership on, or give the folder to the server's uid",
    ),
    "no-volume": (
        "its volume is not mounted. Nothing was written",
        "a hook or profile of this hub has removed the volume; see modify_pod_hook",
    ),
    "busy": (
        "another server of yours is using it. Nothing was lost. Stop that one first",
        "nothing, or a claim for each named server: a claim template with {{user_server}}",
    ),
    "no-lock": (
        (
            "its volume cannot be locked, so that two servers could open the same data. It was not "
            "started, and the data is untouched"
        ),
        (
            "take an image with flock and a volume that knows locks, or a claim for each server, "
            "ReadWriteOnce; see docs: Databases, no-lock; and why in its log: {log} --previous"
        ),
    ),
    "unlocked": (
        (
            "it runs, but its volume cannot be locked: a second server on the same data would not "
            "be noticed. Nothing was lost"
        ),
        (
            "take an image with flock and a volume that knows locks; until then let nothing else "
            "use the claim: kubectl -n {namespace} describe pvc {claim}"
        ),
    ),
}

#: What servers print before they end, and what that is called here. The first that fits counts.
PRINTED = (
    ("No space left on device", "full"),
    ("could not extend file", "full"),
    ("Disk full", "full"),
    ("Disk is full", "full"),
    ("has invalid permissions", "mode"),
    ("has wrong ownership", "permission"),
    ("Permission denied", "permission"),
    ("Errcode: 13", "permission"),
    ("database files are incompatible with server", "incompatible"),
    ("could not look up effective user ID", "account"),
    ("exists but is not empty", "unknown-data"),
    ("invalid checkpoint record", "corrupt"),
    ("could not locate a valid checkpoint record", "corrupt"),
    ("invalid primary checkpoint record", "corrupt"),
    ("could not read file", "corrupt"),
    ("could not open file", "corrupt"),
    ("invalid page", "corrupt"),
    ("incorrect checksum in control file", "corrupt"),
    ("is corrupted", "corrupt"),
    ("Corrupt", "corrupt"),
    ("Cannot allocate memory", "memory"),
    ("could not map anonymous shared memory", "memory"),
    ("Address already in use", "port"),
    ("invalid value for parameter", "args"),
    ("unrecognized configuration parameter", "args"),
    ("unknown variable", "args"),
    ("unknown option", "args"),
    ("executable file not found", "image"),
    ("not found", "image"),
)
ENDED = {
    "full": (
        "its volume is full. The data is untouched",
        (
            "enlarge capacity ({capacity}) of the entry in databases; the volume grows at the "
            "user's next start: kubectl -n {namespace} get pvc {claim}"
        ),
    ),
    "mode": (
        "the permissions of its folder are too open for the server. The data is untouched",
        "chmod 0700 the data folder",
    ),
    "incompatible": (
        "its data was written by another version or another build of the server. It is untouched",
        "set the image back, or move the data across: {upgrade}",
    ),
    "account": (
        "its image has no account for the uid it runs as. Nothing was written",
        "set run_as to 'image', or take an image with libnss-wrapper (not Alpine's)",
    ),
    "corrupt": (
        "its files are damaged. They were left as they are",
        "copy the claim's data first; then see docs: Databases, damaged files",
    ),
    "memory": (
        "it has too little memory. The data is untouched",
        "raise resources.limits.memory of the entry in databases",
    ),
    "port": (
        "its port is taken by something else in the lab. The data is untouched",
        "set port of the entry in databases",
    ),
    "args": (
        "the server does not take the arguments that this hub gives it. The data is untouched",
        "mend args of the entry in databases",
    ),
    "image": (
        "its image has not the programs that are needed. The data is untouched",
        "take an image that keeps the official one's contract: sh, entrypoint, client programs",
    ),
    "container": (
        "its container could not be made just now. The data is untouched",
        (
            "often a Secret is missing that env of the entry names: kubectl -n {namespace} "
            "describe pod {pod}"
        ),
    ),
    "killed": (
        "it was killed, most likely for want of memory. The data is untouched",
        "raise resources.limits.memory of the entry in databases",
    ),
    "ended": (
        "the server ended by itself. The data was left as it is",
        "see its log: {log} --previous",
    ),
    "pull": (
        "its image cannot be had just now. The data is untouched",
        (
            "see that the image of the entry in databases exists and may be pulled: kubectl -n "
            "{namespace} describe pod {pod}"
        ),
    ),
}

#: It runs, or may still come to: said once the lab has gone on without it.
LATE = {
    "late": (
        (
            "it had not answered after {0} s, and your server was started without waiting longer. "
            "The data is untouched"
        ),
        "startup_deadline of the entry in databases is the limit; see its log: {log}",
    ),
}

#: What is to be given to the user (see ownership.py), and by a container that does not run.
FOLDERS = {
    "ownership": (
        (
            "the container that gives folders to you cannot run just now, so that some may not be "
            "writable. Nothing was changed"
        ),
        (
            "see that the image in SafeKubeSpawner.ownership_image exists and may be pulled: "
            "kubectl -n {namespace} get events --field-selector involvedObject.name={pod}"
        ),
    ),
}

#: Its claim, which was refused before there was a pod.
CLAIM = {
    "volume": (
        "its volume cannot be had. Nothing was lost, and no new one was put in its place",
        "{refusal}",
    ),
}
