"""Real database servers, one of each engine for all tests of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tools import databases
from tools.databases import NoServers, Programs, Server


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Of PostgreSQL and MariaDB; installed where that is possible."""
    try:
        return databases.ensure()
    except NoServers as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"no database servers, and CI is set: {error}", pytrace=False)
        pytest.skip(f"NO DATABASE SERVERS, a whole part is not tested: {error}")


@pytest.fixture(scope="session")
def postgresql(programs: Programs) -> Iterator[Server]:
    with databases.postgresql(programs) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb(programs: Programs) -> Iterator[Server]:
    with databases.mariadb(programs) as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """The one that the test's parameter names."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path) -> Callable[[str], str]:
    """Makes the URL of an empty database of an engine."""

    def make(engine: str) -> str:
        if engine == "sqlite":
            number = len(list(tmp_path.iterdir()))
            return f"sqlite:///{tmp_path}/new-{number}.sqlite"
        return request.getfixturevalue(engine).new_database()

    return make
