"""The table of images: one entry is all that a further image needs."""

from __future__ import annotations

from . import databases
from .archive import Runtime
from .paths import HERE
from .recipe import PATH, Recipe

LAB = "jhub-safety/lab:1"
BUSYBOX = "jhub-safety/busybox:1"
PAUSE = "jhub-safety/pause:1"

RECIPES: tuple[Recipe, ...] = (
    # The sandbox container of a pod only has to exist. It cannot be PID 1 for a shared process
    # namespace (it reaps nothing), which no lab asks for.
    Recipe(PAUSE, Runtime(cmd=("/bin/sleep", "inf"), env={"PATH": PATH}), about="1 s"),
    Recipe(BUSYBOX, Runtime(cmd=("/bin/sh",), env={"PATH": PATH}), about="1 s"),
    Recipe(
        LAB,
        Runtime(
            cmd=("jupyterhub-singleuser",),
            user="1000:100",
            working_dir="/home/jovyan",
            env={
                "PATH": f"/opt/venv/bin:{PATH}",
                "HOME": "/home/jovyan",
                "LANG": "C.UTF-8",
                "SHELL": "/bin/bash",
                "NB_USER": "jovyan",
                "NB_UID": "1000",
                "NB_GID": "100",
            },
        ),
        about="2 minutes",
        packages=("python3", "python3-venv", "postgresql-client", "mariadb-client-core"),
        requirements=HERE / "lab-requirements.txt",
        script="""
useradd --no-user-group --gid 100 --uid 1000 --create-home --shell /bin/bash jovyan
# Debian's psql and pg_dump are a perl script that looks for a local server's version.
for program in /usr/lib/postgresql/*/bin/*; do
    ln -s "$program" /usr/local/bin/
done
rm -rf /usr/share/perl /usr/lib/*/perl /usr/lib/*/libperl.*
cd /tmp
apt-get download mariadb-client
dpkg --fsys-tarfile mariadb-client_*.deb | tar -x -C / ./usr/bin/mariadb-dump
# Source maps are half of JupyterLab's files and serve no lab.
find /opt/venv/share/jupyter -name '*.map' -delete
# A broken image shows here, not as a lab that does not start.
su jovyan -c '/opt/venv/bin/jupyterhub-singleuser --version && /opt/venv/bin/jupyter-lab --version'
su jovyan -c 'psql --version && pg_dump --version && mariadb --version && mariadb-dump --version'
/opt/venv/bin/python -c 'import psycopg, pymysql'
""",
    ),
    *databases.RECIPES,
)


def recipe(tag: str) -> Recipe:
    for entry in RECIPES:
        if entry.tag == tag:
            return entry
    raise KeyError(f"no image {tag!r}; known: {', '.join(entry.tag for entry in RECIPES)}")
