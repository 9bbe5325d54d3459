#!/usr/bin/env bash
# A cluster on this machine for as long as this script runs:
#
#     launchers/local.sh [ENGINES] [OPTIONS OF `hiersched start`]
#
# One engine per core by default. Ctrl-C, SIGTERM and SIGHUP stop it; when the script is killed, the cluster ends too.
set -eu

engines=${1:-$(nproc)}
[ $# -eq 0 ] || shift

exec hiersched start -n "$engines" --no-daemonize "$@"
