"""What alembic runs to apply the steps; `flashhold.ledger.schema.upgrade` hands it the connection."""

from alembic import context

from flashhold.ledger.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
