"""Runs migrations on the connection it is handed, or on GATEWAY_DATABASE_URL when run by hand."""

import os

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlmodel import SQLModel

from gateway.ports import Server
from gateway.store import schema, tables

assert tables.Verification.__tablename__  # the import that fills the metadata


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
elif os.environ["GATEWAY_DATABASE_URL"].startswith("postgresql"):
    schema.settled(schema.on_server(Server(os.environ["GATEWAY_DATABASE_URL"]), _run))
else:
    with create_engine(os.environ["GATEWAY_DATABASE_URL"]).connect() as opened:
        _run(opened)
