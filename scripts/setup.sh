# Sourced by the other scripts: `setup` makes .venv beside the project with every dependency at the exact
# version and hash of requirements-dev.lock, and `python` is its interpreter. A second run only compares a
# stamp. Another environment is made when `use_environment` named it before.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# use_environment DIRECTORY LOCK
use_environment() {
    environment=$project/$1
    lock=$project/$2
    python=$environment/bin/python
}
use_environment .venv requirements-dev.lock

# The first interpreter that starts and is new enough. A name alone says little: version switchers leave
# stubs on the PATH that only print an error.
find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    echo "p2pnode needs Python 3.11 or newer, and none of python3.13 python3.12 python3.11 python3 is one" >&2
    return 1
}

# What the environment was made from: when any of it changes, it is made anew.
expected_stamp() {
    echo "$project"
    cat "$lock" "$project/pyproject.toml" | cksum
}

# Every step says `|| return`: bash ignores `set -e` in a function whose result is tested.
make_environment() {
    local system_python
    system_python=$(find_python) || return
    if ! "$system_python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "$system_python lacks its venv module: install it (Debian, Ubuntu: apt install python3-venv)" >&2
        return 1
    fi
    echo "making $environment with $system_python, once" >&2
    "$system_python" -m venv --clear "$environment" || return
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r "$lock" >&2 || return
    # The project itself needs no network: its build backend came with the lock file.
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
        --editable "$project" >&2
}

setup() {
    local stamp=$environment/setup-stamp
    if [[ -x $python && -e $stamp && $(<"$stamp") == "$(expected_stamp)" ]]; then
        return
    fi
    make_environment || return
    expected_stamp >"$stamp"
}
