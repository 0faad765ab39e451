//! Tenants, policies, generation hooks, decisions and the audit log.
