#!/usr/bin/env bash
# Trains for a number of minutes on a machine that is lent for as long, and keeps what the run left.
#   scripts/train_for.sh MINUTES PARTS OUT [key=value ...]
# PARTS: a folder of parts (scripts/pack_training_set.py), unpacked once to $DATA (default /tmp/ss4d-data).
# OUT: gets the exported models, log.csv, the resolved config and the newest checkpoint; a checkpoint that lies in
# OUT/checkpoints already is where training goes on from.
set -euo pipefail
if (($# < 3)) || ! [[ $1 =~ ^[0-9]+([.][0-9]+)?$ ]]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
mkdir -p "$3"
minutes=$1 parts=$(realpath "$2") out=$(realpath "$3")
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=python3
[[ -x .venv/bin/python ]] && python=.venv/bin/python
data=${DATA:-/tmp/ss4d-data}
if [[ ! -d $data/encode ]]; then
    rm -rf "$data.unfinished"
    "$python" scripts/pack_training_set.py unpack "$parts" "$data.unfinished"
    mv -T "$data.unfinished" "$data"
fi
status=0
# SIGTERM stops a run after its step, with a checkpoint and an export.
timeout --preserve-status --signal=TERM --kill-after=60 "$(awk "BEGIN {print int(60 * $minutes) + 1}")" \
    "$python" train.py data.root="$data" run_dir="$out" train.keep=1 "$@" || status=$?
case $status in
    0 | 143) echo "train_for.sh: stopped after at most $minutes minutes; the run is in $out" ;;
    *) exit "$status" ;;
esac
