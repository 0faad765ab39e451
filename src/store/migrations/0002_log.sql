-- The decision log: entries as they were written, with columns to find them by. One chain for each instance.
CREATE TABLE log_entry (
    instance TEXT NOT NULL,
    seq BIGINT NOT NULL,
    decision_id TEXT NOT NULL,
    path TEXT NOT NULL,
    tenant TEXT,
    -- Microseconds since 1970.
    at BIGINT NOT NULL,
    outcome TEXT,
    reason TEXT,
    request TEXT,
    model TEXT,
    subject TEXT,
    entry TEXT NOT NULL,
    PRIMARY KEY (instance, seq)
);
CREATE INDEX log_entry_by_time ON log_entry (at, instance, seq);
CREATE INDEX log_entry_by_tenant ON log_entry (tenant, at, instance, seq);
CREATE INDEX log_entry_by_outcome ON log_entry (tenant, outcome, at, instance, seq);
CREATE INDEX log_entry_by_decision ON log_entry (decision_id);
CREATE INDEX log_entry_by_subject ON log_entry (subject) WHERE subject IS NOT NULL;

-- The rules that a decision found violated.
CREATE TABLE log_rule (
    tenant TEXT NOT NULL,
    rule TEXT NOT NULL,
    at BIGINT NOT NULL,
    instance TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (tenant, rule, at, instance, seq)
);
CREATE INDEX log_rule_by_entry ON log_rule (instance, seq);

-- The last entry of each chain.
CREATE TABLE log_head (
    instance TEXT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    key_id TEXT,
    signature TEXT
);
