#!/usr/bin/env bash
# Runs every test of the workspace, end-to-end tests and examples included. Needs Rust, a C compiler, curl and a PostgreSQL
# (Debian: apt-get install gcc libc6-dev curl postgresql), which tests start for themselves on a port of their own;
# CLUEGATE_TEST_POSTGRES=skip leaves its tests out.
set -euo pipefail
cd "$(dirname "$0")"
exec cargo test --release --workspace "$@"
