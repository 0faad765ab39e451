#!/usr/bin/env bash
# Runs every test of the workspace, end-to-end tests and examples included. Needs nothing but Rust and a C compiler.
set -euo pipefail
cd "$(dirname "$0")"
exec cargo test --release --workspace "$@"
