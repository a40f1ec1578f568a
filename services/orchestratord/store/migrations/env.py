"""How alembic runs the steps: on the connection, and in the transaction, that `store.migrate` hands in."""

from alembic import context

from orchestratord.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
