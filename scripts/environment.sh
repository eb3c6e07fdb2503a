# Sourced by the other scripts. Sets `root` (the checkout) and provides `environment`, which prepares its .venv.
# shellcheck shell=bash

root="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

new_enough() {
    "$1" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# environment [--test]: create or update .venv; quick if nothing changed.
environment() {
    local python
    for python in "$root/.venv/bin/python" python3.11 python3 python3.14 python3.13 python3.12 python; do
        if command -v -- "$python" >/dev/null && new_enough "$python"; then
            "$python" -I "$root/scripts/environment.py" "$@"
            return
        fi
    done
    echo "setup: Python 3.11 or newer is needed, and none was found on PATH." >&2
    return 1
}
