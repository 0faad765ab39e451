//! The database of a gateway: tenants, policies, constitutions, keys and usage, in SQLite or PostgreSQL.
