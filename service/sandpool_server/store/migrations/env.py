"""The environment that Alembic runs for each command. It uses the connection and the transaction of `migrate`."""

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
