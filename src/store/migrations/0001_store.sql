-- Tenants, templates, constitutions, keys, usage, and the log of their changes. One text for SQLite and PostgreSQL.
-- Times are milliseconds since 1970 (UTC). Policies are TOML as in a policy file, without the table's header.

-- One row. Raised by one in each transaction that changes what a gateway has loaded, so that gateways poll one number;
-- the row's lock makes such transactions follow each other, so that whoever sees a number sees all changes up to it.
CREATE TABLE store_generation (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT NOT NULL
);
INSERT INTO store_generation (id, value) VALUES (1, 0);

-- What changed, when and by whom. `tenant` is the owner of a key, and the name itself for anything else.
CREATE TABLE store_change (
    generation BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('template', 'tenant', 'constitution', 'key')),
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    action TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    PRIMARY KEY (generation, kind, tenant, name)
);

CREATE TABLE template (
    name TEXT NOT NULL PRIMARY KEY,
    policy TEXT NOT NULL,
    version BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_ms BIGINT NOT NULL
);

CREATE TABLE tenant (
    name TEXT NOT NULL PRIMARY KEY,
    policy TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
    version BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_ms BIGINT NOT NULL
);

-- Every revision that ever was; a text never changes.
CREATE TABLE constitution_revision (
    name TEXT NOT NULL,
    revision TEXT NOT NULL,
    body TEXT NOT NULL,
    added_by TEXT NOT NULL,
    added_ms BIGINT NOT NULL,
    PRIMARY KEY (name, revision)
);

-- The revision that a name stands for.
CREATE TABLE constitution (
    name TEXT NOT NULL PRIMARY KEY,
    current TEXT NOT NULL,
    version BIGINT NOT NULL,
    changed_by TEXT NOT NULL,
    changed_ms BIGINT NOT NULL,
    FOREIGN KEY (name, current) REFERENCES constitution_revision (name, revision)
);

-- A key's id is its tenant's: two tenants may use the same one without knowing of each other. Its hash is nobody else's.
CREATE TABLE api_key (
    tenant TEXT NOT NULL REFERENCES tenant (name),
    id TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),
    note TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    not_before_ms BIGINT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE tenant_usage (
    tenant TEXT NOT NULL,
    measure TEXT NOT NULL,
    period TEXT NOT NULL,
    start_ms BIGINT NOT NULL,
    used BIGINT NOT NULL CHECK (used >= 0),
    PRIMARY KEY (tenant, measure, period, start_ms)
);
