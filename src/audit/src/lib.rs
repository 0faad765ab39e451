//! The decision log: hash-chained entries in the shape of OPA, to a file, a database and a webhook.
