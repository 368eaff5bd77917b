"""Run by Alembic for each command: migrates over the connection, and in the transaction, that `migrate` hands over."""

from alembic import context

from sandpool_server.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
