"""Whatever people are called: nobody is ever given a folder that was made for somebody else."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jupyterhub import orm

from jhub_safety.claimants import others
from jhub_safety.hubdb.records import FOLDER
from jhub_safety.owner import Owner
from jhub_safety.volumes.folders import Kind, Question, Seen, decide, folders, generations
from jhub_safety.volumes.names import Place
from jhub_safety.volumes.slugs import escape, safe

PLACE = Place("jhub", "jhub")
EVERY = generations("{username}", [])
#: Few letters, and names made of other names' escapes.
PERSON = st.builds("a{}".format, st.text("ae2.-@", max_size=3))
NAMES = st.lists(PERSON, min_size=1, max_size=3, unique=True).map(
    lambda people: list(dict.fromkeys((*people, *map(escape, people))))
)


@pytest.fixture(scope="module")
def db():
    made = orm.new_session_factory("sqlite:///:memory:")()
    yield made
    made.close()
    made.get_bind().dispose()


def _start(db, name: str, existing: set[str]) -> str | None:
    """As a start does it; the folder that is mounted."""
    owner = Owner("hub", name)
    names = tuple(dict.fromkeys((safe(name), *folders(owner, EVERY, PLACE))))
    row = db.query(orm.Spawner).join(orm.User).filter(orm.User.name == name).one()
    saved = (row.state or {}).get(FOLDER)
    question = Question(owner, names[0], names, saved=frozenset({saved} - {None}))
    if saved is None:
        rivals, guesses = others(db, question, EVERY, PLACE, ())
        question = Question(owner, names[0], names, rivals=rivals, guesses=guesses)
    kinds = {one: Kind.FOLDER if one in existing else Kind.ABSENT for one in names}
    folder = decide(question, Seen(kinds)).folder
    if folder is not None:
        row.state = {FOLDER: folder}
        db.commit()
    return folder


@given(
    everybody=NAMES,
    were_there=st.sets(st.integers(0, 5)),
    comings=st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nobody_gets_a_folder_that_was_made_for_another(db, everybody, were_there, comings):
    """Some ran under KubeSpawner 6; then people come, in any order and again and again."""
    db.query(orm.Spawner).delete()
    db.query(orm.User).delete()
    for name in everybody:
        user = orm.User(name=name)
        db.add(user)
        db.add(orm.Spawner(name="", user=user, state={}))
    db.commit()
    made_for = {escape(everybody[n]): everybody[n] for n in were_there if n < len(everybody)}
    had = {name: folder for folder, name in made_for.items()}
    for number in comings:
        name = everybody[number % len(everybody)]
        folder = _start(db, name, set(made_for))
        if folder is None:
            continue  # refused: nothing is mounted, nothing is made
        assert made_for.setdefault(folder, name) == name
        # Whose files were there before has them, and no second home.
        assert had.setdefault(name, folder) == folder
