"""The schema, as plain SQL scripts run by Alembic: expand first, contract a release later."""
