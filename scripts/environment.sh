# Sourced by the other scripts. Sets `root` (the checkout) and provides `environment`, which prepares its .venv and sets
# `venv` to the name of that folder.
# shellcheck shell=bash

root="$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"

new_enough() {
    "$1" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# environment [--test]: create or update .venv; quick if nothing changed. With --test, TEST_PYTHON may name another
# interpreter, which gets an environment of its own.
environment() {
    local python
    venv=.venv
    if [[ "${1:-}" == --test && -n "${TEST_PYTHON:-}" ]]; then
        venv=".venv-$("$TEST_PYTHON" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        "$TEST_PYTHON" -I "$root/scripts/environment.py" --in "$venv" "$@"
        return
    fi
    for python in "$root/.venv/bin/python" python3.11 python3 python3.14 python3.13 python3.12 python; do
        if command -v -- "$python" >/dev/null && new_enough "$python"; then
            "$python" -I "$root/scripts/environment.py" "$@"
            return
        fi
    done
    echo "setup: Python 3.11 or newer is needed, and none was found on PATH." >&2
    return 1
}
