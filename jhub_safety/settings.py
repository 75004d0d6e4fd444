"""Settings of :class:`~jhub_safety.spawner.SafeKubeSpawner`, without a spawner.

Apart from the spawner so that they can be checked when the hub starts, before anybody logs in.
"""

from __future__ import annotations

from typing import Any

from traitlets import (
    Bool,
    Enum,
    Float,
    HasTraits,
    List,
    TraitError,
    Unicode,
    default,
    validate,
)
from traitlets.config import Config

from jhub_safety.errors import ConfigError
from jhub_safety.labsettings import SECTION, LabSettings
from jhub_safety.sidecars.server import parse_servers
from jhub_safety.volumes.declared import ExtraVolume, parse_all
from jhub_safety.volumes.names import BUILT_IN, OWN, Generation
from jhub_safety.volumes.slugs import StyleName

#: KubeSpawner 7's values of slug_scheme, and what they are called here.
STYLE_NAMES: tuple[StyleName, StyleName] = ("safe", "escape")


class SafetySettings(LabSettings):
    """The traits that this library adds to a spawner."""

    homes = Enum(
        ["enforce", "observe", "off"],
        "enforce",
        config=True,
        help="""
        What to do about users' homes.

        ``enforce``: find, adopt, create or refuse by the decision table (docs: Homes).
        ``observe``: let KubeSpawner do as ever, and log what ``enforce`` would have done.
        ``off``: leave homes to KubeSpawner.

        Only homes that KubeSpawner makes (``storage_pvc_ensure``) are concerned.

        Danger: with ``observe`` and ``off`` a user whose claim was named by an earlier
        generation gets an empty home after the hub database was lost.

        .. versionadded:: 0.1
        """,
    )

    sessions = Enum(
        ["enforce", "observe", "off"],
        "enforce",
        config=True,
        help="""
        What to do about labs that cannot be seen for certain.

        ``enforce``: a lab counts as stopped only on the API server's own word; a running lab is
        taken up by its user's next start, never killed for it.
        ``observe``: let KubeSpawner do as ever, and log where the cluster says otherwise.
        ``off``: leave labs to KubeSpawner.

        Danger: with ``observe`` and ``off`` one failed or empty answer of the API server at hub
        start ends every user's session, and their next start kills the lab with its unsaved work.

        .. versionadded:: 0.1
        """,
    )

    hub_name = Unicode(
        "",
        config=True,
        help="""
        The hub's own name, written as a label on claims, to tell the homes of two hubs apart
        that share a namespace. Empty: the namespace.

        Danger: a claim whose label names another hub is refused. Choose it once; when it must
        change, ``jhub-safety claims adopt`` moves each home over.

        .. versionadded:: 0.1
        """,
    )

    identity_key = Unicode(
        "",
        config=True,
        help="""
        Where the login provider's stable id of a user stands in ``auth_state``, such as
        ``sub`` or ``oauth_user.sub``. A key without a dot is looked for at the top and in the
        dictionaries directly below it. Needs ``c.Authenticator.enable_auth_state = True``.

        With it a renamed account keeps its home, and a recycled user name does not get the
        old one. Empty: the user name is the identity.

        Danger: a user without that key in their login cannot start a server until they have
        logged in again; nothing falls back to the user name.

        .. versionadded:: 0.1
        """,
    )

    earlier_generations = List(
        Unicode(),
        config=True,
        help=f"""
        By which rules this hub really named claims in the past, out of
        {", ".join(f"``{key}``" for key in BUILT_IN)}.

        Needed only for claims without any owner's annotations: such a claim is adopted when,
        in the generations listed here, only this user can have had its name.

        Danger: a rule that was in use and is not listed may let a claim be taken for
        somebody else's home. When in doubt leave it empty and use ``jhub-safety claims adopt``.

        .. versionadded:: 0.1
        """,
    )

    earlier_pvc_name_templates = List(
        Unicode(),
        config=True,
        help="""
        Further templates that this hub used for ``pvc_name_template`` in the past, with
        KubeSpawner's fields. Each is tried with KubeSpawner 7's slugs and with the escapes of
        KubeSpawner 6. ``{userid}`` matches any number.

        .. versionadded:: 0.1
        """,
    )

    annotate_homes = Bool(
        True,
        config=True,
        help="""
        Write the owner on claims that are adopted (needs PATCH on persistentvolumeclaims,
        which the Zero to JupyterHub chart's Role lacks: see examples/helm/rbac.yaml).

        Without it homes are found all the same, at the cost of a listing where one read would
        do, and renaming a named server is refused.

        .. versionadded:: 0.1
        """,
    )

    claim_listing_max_age = Float(
        5.0,
        min=0.0,
        config=True,
        help="""
        Seconds for which one listing of claims is shared by the spawns that need one. Used
        only for homes that neither the hub's record nor a claim's own name settles.

        0 lists anew for each group of spawns that come in at the same time.

        .. versionadded:: 0.1
        """,
    )

    claim_request_timeout = Float(
        10.0,
        min=0.1,
        config=True,
        help="""
        Seconds for one request about claims. A read that fails in a way that may pass is
        tried again for ``k8s_api_request_retry_timeout`` seconds before the spawn is refused.

        .. versionadded:: 0.1
        """,
    )

    extra_pvcs: List[Any] = List(
        config=True,
        help="""
        Further claims for each server's owner, as a list of dictionaries: ``name`` (a template
        with ``{owner_hash}``, ``{username}`` or ``{user_server}``), ``capacity``, and optionally
        ``class``, ``access_modes``, ``labels``, ``annotations``, ``mount_path``, ``sub_path``,
        ``read_only`` and ``overrides`` (docs: Extra volumes). Of all overrides that match a user,
        by name or by group, the one with the largest capacity counts.

        Without a setting, ``custom.singleuser.extraPVCs`` of the Zero to JupyterHub values counts
        with ``homes = "enforce"``; otherwise it is left to the hub's own hook.

        Danger: an entry is known by its ``name``. Change the name, and users get a new, empty
        volume beside the former one; that is logged.

        .. versionadded:: 0.1
        """,
    )

    extra_pvc_mismatch = Enum(
        ["warn", "refuse"],
        "warn",
        config=True,
        help="""
        What to do when an existing claim has another storage class or other access modes than
        configured. ``warn``: log it, and mount the claim as it is. ``refuse``: do not start.

        .. versionadded:: 0.1
        """,
    )

    max_growth = Float(
        10.0,
        min=0.0,
        config=True,
        help="""
        How many times larger a claim may become at once. 0: no limit.

        Danger: a volume that has grown cannot shrink again. This is what stands between a slip
        (``1000Gi`` for ``10Gi``) and the bill for every user who starts that day.

        .. versionadded:: 0.1
        """,
    )

    grow_homes = Bool(
        False,
        config=True,
        help="""
        Enlarge homes that are smaller than ``storage_capacity``, as extra volumes are.

        Needs PATCH on persistentvolumeclaims and a storage class that can grow its volumes.

        .. versionadded:: 0.1
        """,
    )

    journal = Unicode(
        "jhub-safety.journal",
        config=True,
        help="""
        File to which each thing that is done (to claims, sessions, labs, folders, the hub's
        database and its snapshots) is added as one JSON line; relative to the hub's working
        directory (in Zero to JupyterHub: the database's volume). Empty: the log only.

        .. versionadded:: 0.1
        """,
    )

    @default("extra_pvcs")
    def _chart_values(self) -> Any:
        return from_chart("custom.singleuser.extraPVCs", [])

    @validate("extra_pvcs")
    def _usable_volumes(self, proposal: Any) -> Any:
        try:
            parse_all(proposal.value)
        except ConfigError as error:
            raise TraitError(str(error)) from error
        return proposal.value

    @validate("earlier_generations")
    def _known_generations(self, proposal: Any) -> Any:
        unknown = [key for key in proposal.value if key not in BUILT_IN]
        if unknown:
            raise TraitError(
                f"{SECTION}.earlier_generations: {unknown!r} is not known; "
                f"choose from {sorted(BUILT_IN)}"
            )
        return proposal.value

    @validate("earlier_pvc_name_templates")
    def _usable_templates(self, proposal: Any) -> Any:
        for template in proposal.value:
            try:
                Generation(template, template, "safe")
            except ConfigError as error:
                raise TraitError(f"{SECTION}.earlier_pvc_name_templates: {error}") from error
        return proposal.value

    def extra_volumes(self) -> tuple[ExtraVolume, ...]:
        """Every claim of a user beside the home: ``extra_pvcs``, and those of ``databases``.

        A database whose ``claim`` is an entry of ``extra_pvcs`` has that one, as it stands there.
        """
        declared = parse_all(self.extra_pvcs)
        names = {one.name for one in declared}
        entries = [one.volume_entry() for one in parse_servers(self.databases)]
        databases = parse_all(entries, f"{SECTION}.databases")
        return (*declared, *(one for one in databases if one.name not in names))

    @classmethod
    def section_names(cls) -> list[str]:
        """Configuration sections, later ones winning.

        A class that ``setup`` generated is not in the section people write; traitlets reads
        only the sections of a class and its parents.
        """
        names: list[str] = super().section_names()
        if SECTION not in names:
            names.insert(len(names) - 1, SECTION)
        return names

    def further(self) -> tuple[Generation, ...]:
        """``earlier_pvc_name_templates``, each in both styles."""
        return tuple(
            Generation(f"{template} ({style})", template, style)
            for template in self.earlier_pvc_name_templates
            for style in STYLE_NAMES
        )

    def declared_generations(self, template: str, slug_scheme: str) -> tuple[Generation, ...]:
        """Those that the hub runs or says it ran. Ours first: named by a hash, best proven."""
        style = STYLE_NAMES[0] if slug_scheme == "safe" else STYLE_NAMES[1]
        now = () if template == OWN.template else (Generation("configured", template, style),)
        earlier = tuple(BUILT_IN[key] for key in self.earlier_generations)
        return (OWN, *now, *earlier, *self.further())

    def known_generations(self, template: str, slug_scheme: str) -> tuple[Generation, ...]:
        """Every generation by which a claim may be called."""
        declared = self.declared_generations(template, slug_scheme)
        return (*declared, *(g for g in BUILT_IN.values() if g not in declared))


def from_chart(key: str, otherwise: Any) -> Any:
    """A value of the Zero to JupyterHub chart; *otherwise* outside of its hub."""
    try:
        from z2jh import get_config  # type: ignore[import-not-found]
    except ImportError:
        return otherwise
    return get_config(key, otherwise) or otherwise


def effective(cls: type[HasTraits], config: Config, name: str) -> Any:
    """What configuration sets trait *name* of *cls* to, or None when nothing does.

    Without making an instance: a spawner needs a user and a running hub.
    """
    value = None
    for section in cls.section_names():  # type: ignore[attr-defined]
        if section in config:
            value = config[section].get(name, value)
    return value
