#!/usr/bin/env bash
# Sets up SS4D in .venv, and runs its demo or its tests there. See usage below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

DEMO_CLIP=assets/demo.mp4
DEMO_MODEL=checkpoints/ss4d-tiny
DEMO_OUT=outputs/demo
VENV=.venv
STAMP=$VENV/.ss4d-installed         # what was installed: a checksum of the files that decide it
DEV_STAMP=$VENV/.ss4d-dev-installed # the same for what tests and data preparation need on top
BLENDER_VENV=.venv-blender
BLENDER_STAMP=$BLENDER_VENV/.ss4d-installed
BLENDER_LIBRARIES="libgl1 libegl1 libegl-mesa0 libgl1-mesa-dri libx11-6 libxext6 libxfixes3 libxi6 libxrender1 \
libxxf86vm1 libxkbcommon0 libsm6 libice6"

usage() {
    cat <<END
Usage: ./setup.sh install|data|demo|blender|test
  install   create $VENV and install SS4D with pinned requirements; does nothing where that is done
  data      install, then add what data preparation needs (Ray, DINOv2, Objaverse; also the linters and pytest)
  demo      install, then turn $DEMO_CLIP into 4D Gaussians in $DEMO_OUT
  blender   create $BLENDER_VENV with Blender, for the dataset toolkit's stages pose and render (Python 3.11)
  test      install, then lint, check types and run the tests
Environment:
  PYTHON            interpreter to create $VENV with, 3.10 to 3.13 (default: the first one found)
  BLENDER_PYTHON    Python 3.11 to create $BLENDER_VENV with (default: python3.11)
  SS4D_TEST_WORKERS processes that share the tests (default: 2; 0 runs them in one)
END
}

say() { echo "setup.sh: $*"; }
fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

supported() { [[ $1 =~ ^3\.(10|11|12|13)$ ]]; }

# Prints the interpreter to use: $PYTHON, or the first supported one on the PATH.
find_python() {
    local candidate version
    if [[ -n ${PYTHON:-} ]]; then
        version=$(python_version "$PYTHON") || fail "PYTHON=$PYTHON does not run; name a Python 3.10 to 3.13."
        supported "$version" || fail "PYTHON=$PYTHON is Python $version; SS4D needs Python 3.10 to 3.13."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.{11,12,13,10}; do
        if version=$(python_version "$candidate") && supported "$version"; then
            echo "$candidate"
            return
        fi
    done
    version=$(python_version python3) || version="not found"
    fail "SS4D needs Python 3.10 to 3.13, but python3 is $version; install one (on Debian and Ubuntu:" \
        "apt-get install python3 python3-venv) or name it: PYTHON=/path/to/python ./setup.sh install"
}

make_venv() {
    local python version
    python=$(find_python)
    version=$(python_version "$python")
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python $version lacks its venv module; on Debian and Ubuntu: apt-get install python$version-venv"
    say "creating $VENV with Python $version"
    "$python" -m venv --clear "$VENV"
}

install() {
    local needed version
    needed="$(cat requirements.txt pyproject.toml | cksum) $PWD"
    if [[ -f $STAMP && $(<"$STAMP") == "$needed" && -x $VENV/bin/python ]]; then return; fi
    # Scripts in the environment and the link to this checkout name its place: one that was moved is made anew.
    if [[ -f $STAMP && $(<"$STAMP") == *" /"* && $(<"$STAMP") != *" $PWD" ]]; then rm -rf "$VENV"; fi
    rm -f "$STAMP"
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || make_venv
    version=$(python_version "$VENV/bin/python") || version="broken"
    supported "$version" || fail "$VENV holds Python $version, SS4D needs 3.10 to 3.13; remove $VENV and try again."
    # torch goes first and by itself, so that a CPU or CUDA build chosen in pip's own settings is the one that stays.
    say "installing torch (a large download)"
    pip_install "$(grep '^torch==' requirements.txt)"
    say "installing the other requirements"
    pip_install -r requirements.txt
    pip_install --no-deps --no-build-isolation --editable .
    echo "$needed" >"$STAMP"
    say "installed in $VENV"
}

install_dev() {
    local needed
    needed=$(cksum <requirements-dev.txt)
    if [[ -f $DEV_STAMP && $DEV_STAMP -nt $STAMP && $(<"$DEV_STAMP") == "$needed" ]]; then return; fi
    say "installing what tests and data preparation need on top"
    pip_install -r requirements-dev.txt
    echo "$needed" >"$DEV_STAMP"
}

# esbuild and TypeScript (34 MB), with which a test compares the player's page with its sources; skipped without npm.
install_viewer() {
    command -v npm >/dev/null || return 0
    if [[ viewer/node_modules/.package-lock.json -nt viewer/package-lock.json ]]; then return; fi
    say "installing what builds the player"
    npm ci --prefix viewer --silent || say "npm ci failed, so the player's page is not compared with its sources" >&2
}

pip_install() { pip_install_in "$VENV" "$@"; }

pip_install_in() {
    local venv=$1
    shift
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        fail "pip install $* failed (see above); check the network connection and try again."
}

demo() {
    [[ -e $DEMO_CLIP ]] || fail "$DEMO_CLIP is missing; is this a complete checkout?"
    [[ -d $DEMO_MODEL ]] || fail "$DEMO_MODEL is missing; is this a complete checkout?"
    "$VENV/bin/python" inference.py "$DEMO_CLIP" --model "$DEMO_MODEL" --out "$DEMO_OUT"
    say "the result is in $DEMO_OUT"
}

install_blender() {
    local python=${BLENDER_PYTHON:-python3.11} needed version
    needed=$(cksum <requirements-blender.txt)
    if [[ -f $BLENDER_STAMP && $(<"$BLENDER_STAMP") == "$needed" && -x $BLENDER_VENV/bin/python ]]; then return; fi
    rm -f "$BLENDER_STAMP"
    if ! "$BLENDER_VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        version=$(python_version "$python") || version="not found"
        [[ $version == 3.11 ]] ||
            fail "Blender needs Python 3.11 exactly, but $python is $version; install it (on Debian 12: apt-get" \
                "install python3.11 python3.11-venv) or name it: BLENDER_PYTHON=/path/to/python3.11 ./setup.sh blender"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$python lacks its venv module; on Debian and Ubuntu: apt-get install python3.11-venv"
        say "creating $BLENDER_VENV"
        "$python" -m venv "$BLENDER_VENV"
    fi
    say "installing Blender (a large download)"
    pip_install_in "$BLENDER_VENV" -r requirements-blender.txt
    check_blender
    echo "$needed" >"$BLENDER_STAMP"
    say "installed in $BLENDER_VENV"
}

# Blender renders a picture; where it cannot, the system libraries that it needs are installed or named.
check_blender() {
    local log
    blender_renders >/dev/null && return
    if ((EUID == 0)) && command -v apt-get >/dev/null; then
        say "Blender does not start yet; installing its system libraries: $BLENDER_LIBRARIES"
        # shellcheck disable=SC2086
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            $BLENDER_LIBRARIES >/dev/null || fail "apt-get failed (see above)."
        blender_renders >/dev/null && return
    fi
    log=$(blender_renders | tail -n 5) || true
    fail "Blender cannot render here. It needs system libraries; on Debian and Ubuntu, as root:" \
        "apt-get install $BLENDER_LIBRARIES"$'\n'"It said: $log"
}

blender_renders() { "$BLENDER_VENV/bin/python" -I dataset_toolkits/blender/selftest.py 2>&1; }

# Lint comes first and does not stop the tests, so that the last line printed is pytest's summary.
run_tests() {
    local status=0 workers=${SS4D_TEST_WORKERS:-2}
    "$VENV/bin/ruff" check . || status=1
    "$VENV/bin/ruff" format --check . || status=1
    "$VENV/bin/mypy" || status=1
    ((status)) && say "linting failed (see above); running the tests all the same" >&2
    if ((workers > 0)); then
        export OMP_NUM_THREADS=1 # the processes share the cores
    fi
    "$VENV/bin/python" -m pytest --numprocesses "$workers" --dist worksteal || status=$?
    exit "$status"
}

case ${1:-} in
    install) install ;;
    data)
        install
        install_dev
        ;;
    demo)
        install
        demo
        ;;
    blender) install_blender ;;
    test)
        install
        install_dev
        install_viewer
        run_tests
        ;;
    -h | --help | help) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
