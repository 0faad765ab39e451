-- What policies of tenants and templates said, each time that one was written, by whom and when. Kept when the tenant or the
-- template is removed, and never changed. `generation` is the store's number after the change; 0 for what was there before
-- this table.
CREATE TABLE policy_version (
    kind TEXT NOT NULL CHECK (kind IN ('template', 'tenant')),
    name TEXT NOT NULL,
    generation BIGINT NOT NULL,
    version BIGINT NOT NULL,
    policy TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    PRIMARY KEY (kind, name, generation)
);
INSERT INTO policy_version (kind, name, generation, version, policy, changed_by, changed_ms)
    SELECT 'template', name, 0, version, policy, changed_by, changed_ms FROM template;
INSERT INTO policy_version (kind, name, generation, version, policy, changed_by, changed_ms)
    SELECT 'tenant', name, 0, version, policy, changed_by, changed_ms FROM tenant;
