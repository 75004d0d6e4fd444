"""Settings of what is in a lab's pod beside the lab: databases, and the containers that look.

A part of :class:`~jhub_safety.settings.SafetySettings`.
"""

from __future__ import annotations

from typing import Any

from traitlets import Enum, Integer, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from jhub_safety.errors import ConfigError
from jhub_safety.sidecars.server import parse_servers
from jhub_safety.volumes.declared import parse_all
from jhub_safety.volumes.folders import check_template

#: The section that people write, whatever the effective class is called.
SECTION = "SafeKubeSpawner"


class LabSettings(Configurable):  # type: ignore[misc]
    """The traits that decide about containers of this library's in a lab's pod."""

    home_sub_path = Unicode(
        "",
        config=True,
        help="""
        For homes on one claim that all users share: the ``subPath`` under which the home is
        mounted, letter by letter as it stands in ``volume_mounts`` (docs: Homes on one claim).
        In Zero to JupyterHub with ``storage.type: static`` that is ``{username}``.

        Each start then looks first which folder of the user exists, also under the name that
        another KubeSpawner gave it. Empty: off.

        Danger: without it KubeSpawner 7 gives users with ``.``, ``@`` or ``-`` in their names a
        fresh, empty folder where KubeSpawner 6 had made theirs.

        .. versionadded:: 0.1
        """,
    )

    earlier_home_sub_paths = List(
        Unicode(),
        config=True,
        help="""
        Further templates that ``home_sub_path`` had in the past. Each, and today's, is looked
        for with KubeSpawner 7's slugs and with the escapes of KubeSpawner 6.

        .. versionadded:: 0.1
        """,
    )

    home_volume = Unicode(
        "",
        config=True,
        help="""
        Name of the volume (in ``volumes``) that holds the homes. Needed only where volumes of
        several claims are mounted with ``home_sub_path``: those of the others stay as KubeSpawner
        renders them.

        .. versionadded:: 0.1
        """,
    )

    home_look_image = Unicode(
        "busybox:1.37",
        config=True,
        help="""
        Image of the init container that looks for the folder; any with a POSIX shell and ``ls``.

        Danger: while it cannot be pulled, nobody's server starts.

        .. versionadded:: 0.1
        """,
    )

    home_look_uid = Integer(
        None,
        allow_none=True,
        min=0,
        config=True,
        help="""
        As which user id that container looks. It needs the right to enter and to list the root of
        the claim, and no other; it mounts it read-only and has no capabilities.

        None: the lab's own (``uid``), or else 65534.

        .. versionadded:: 0.1
        """,
    )

    databases: List[Any] = List(
        config=True,
        help="""
        Private database servers beside each lab: ``["postgres"]``, or dictionaries with ``kind``
        (``postgres``, ``mysql``, ``mariadb``, or a dotted path) and optionally ``name``, ``image``,
        ``capacity``, ``class``, ``resources``, ``env``, ``args``, ``run_as`` and more (docs:
        Databases). Each has a claim of its own, which outlives the lab.

        Danger: an entry is known by its ``name``. Change it, and users get a new, empty database
        beside the former one; that is logged.

        .. versionadded:: 0.1
        """,
    )

    ownership = Enum(
        ["auto", "always", "off"],
        "auto",
        config=True,
        help="""
        Give the home and the databases' folders to the lab's user, by an init container that runs
        as root and can do nothing else. ``auto``: in labs that have a database. ``always``: in
        every lab. ``off``: never.

        Only what is not writable for the user is changed, and never what is in a home. Where a
        namespace refuses containers that run as root, ``fsGroup`` is used instead.

        .. versionadded:: 0.1
        """,
    )

    ownership_paths = List(
        Unicode(),
        config=True,
        help="""
        Further paths in the lab, such as ``/home/jovyan/shared``, whose folders are given to the
        lab's user while they still belong to root. Only paths at which something is mounted.

        .. versionadded:: 0.1
        """,
    )

    ownership_image = Unicode(
        "busybox:1.37",
        config=True,
        help="""
        Image of the init container of ``ownership``; it needs ``sh``, ``stat``, ``find`` and
        ``chown``.

        Danger: while it cannot be pulled, each start takes 30 s longer and goes on without it, so
        that new homes and databases may not be writable; with a ``required`` database no server
        starts.

        .. versionadded:: 0.1
        """,
    )

    home_mount_path = Unicode(
        "/home/jovyan",
        config=True,
        help="""
        Where the home is mounted in the lab, for homes whose claim KubeSpawner does not make.

        .. versionadded:: 0.1
        """,
    )

    @validate("databases")
    def _usable_databases(self, proposal: Any) -> Any:
        try:
            volumes = [one.volume_entry() for one in parse_servers(proposal.value)]
            parse_all(volumes, f"{SECTION}.databases")
        except ConfigError as error:
            raise TraitError(str(error)) from error
        return proposal.value

    @validate("home_sub_path", "earlier_home_sub_paths")
    def _usable_sub_paths(self, proposal: Any) -> Any:
        many = proposal.value if isinstance(proposal.value, list) else [proposal.value]
        try:
            for template in many:
                if template:
                    check_template(template)
        except ConfigError as error:
            raise TraitError(f"{SECTION}.{proposal.trait.name}: {error}") from error
        return proposal.value
