#!/usr/bin/env bash
# A cluster on this machine for as long as this script runs: launchers/local.sh [ENGINES], one per core by default.
set -eu

engines=${1:-$(nproc)}

hiersched start -n "$engines"
trap 'kill "${waiting:-}" 2>/dev/null || true; hiersched stop' EXIT
trap 'exit 0' INT TERM HUP

cat <<END
$engines engines are ready. From any Python of this user on this machine:

    import hiersched
    rc = hiersched.Client()
    rc[:].apply_sync(lambda: "hello")

Ctrl-C stops them.
END

sleep infinity &
waiting=$!
wait "$waiting"
