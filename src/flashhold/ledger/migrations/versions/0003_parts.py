"""The ledger with a way to the parts of carts over several partitions."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The driver's own cursor: a colon or a percent sign in the file means itself.
    driver = op.get_bind().connection.cursor()
    driver.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
