//! Safety rules as data: rules, precondition chains, exceptions, thresholds, revision.
