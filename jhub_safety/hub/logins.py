"""Browser sessions, ended by the running hub in its own ORM session."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm
from sqlalchemy import inspect
from sqlalchemy.orm import Session as Database

from jhub_safety.hubdb.logout import LoggedOut, logout


def log_out(db: Database, user: str | None) -> LoggedOut:
    """End the browser sessions of *user*, or of everybody; what the hub has in memory follows.

    Raises:
        Doubt: there is no such user.
    """
    known = None if user is None else orm.User.find(db, user)
    number = None if known is None else known.id
    try:
        done = logout(db.connection(), user)
        db.commit()
    finally:
        db.rollback()
        # What is in memory is from before.
        if user is None:
            db.expire_all()
        elif number is not None:
            _expire(db, number)
    return done


def _expire(db: Database, user_id: int) -> None:
    """The logins of one user alone: each of the others would be a query when it is next used."""
    for one in list(db.identity_map.values()):
        # Not its attributes: one that is expired already would be read for them.
        held: dict[str, Any] = inspect(one).dict
        if isinstance(one, orm.OAuthClient):
            db.expire(one, ["access_tokens", "codes"])
        elif isinstance(one, orm.User):
            if held.get("id") == user_id:
                db.expire(one)
        elif isinstance(one, orm.APIToken | orm.OAuthCode) and held.get("user_id") == user_id:
            db.expire(one)
