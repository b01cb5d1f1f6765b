#!/usr/bin/env bash
# What only a GPU can show, in at most 8 minutes: tests, ratios to a bf16 matrix product, training at full size.
#
#   tests/gpu/check.sh                          on a machine with a GPU
#   PDDM_LAB_DEVICE=cpu tests/gpu/check.sh      a rehearsal in small, without one
#
# It needs the lab's packages with a CUDA build of torch, but no network. PYTHON: the interpreter; OUT: folder for its
# tables and loss curves; DATASET: pictures to train on, such as folder:PATH. Where the whole data set is too large to
# carry, `python tests/gpu/carry.py FOLDER` copies a part of Caltech-101, and DATASET=folder:FOLDER trains on it.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-$(mktemp -d)}
mkdir -p "$OUT"
export PDDM_LAB_DEVICE=${PDDM_LAB_DEVICE:-cuda} PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
DATASET=${DATASET:-caltech101}
if [ "$PDDM_LAB_DEVICE" = cpu ]; then
  DATASET=${REHEARSED_ON:-digits} ITEMS=512 PICTURES=32 SECONDS_EACH=10 CORES=2 SMALL=--small PATIENCE=5
else
  ITEMS=16384 PICTURES=3000 SECONDS_EACH=75 CORES=0 SMALL= PATIENCE=1
fi
failed=()

# check NAME LIMIT COMMAND...: what fails or takes longer than so many seconds is named in the end; the rest goes on.
check() {
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  echo "== $name"
  timeout "$((limit * PATIENCE))" "$@" 2>&1 | tee "$OUT/$name.txt" || failed+=("$name")
  echo "== $name: $((SECONDS - start)) s"
}

lab() { "$PYTHON" -m pddm_lab.cli "$@"; }
bench() { lab bench "$1" --device "$PDDM_LAB_DEVICE" --cores "$CORES" --json "$OUT/$1.json" "${@:2}"; }
export -f lab bench
export PYTHON OUT CORES

# Without the hooks that check shapes, which a compiler can't follow.
check tests 120 "$PYTHON" -m pytest -q -p no:cacheprovider -o addopts= --durations=5 tests/gpu tests/test_trainer.py -k "gpu"
check scoring 90 bash -c "bench scoring --items $ITEMS"
check train 60 bash -c "bench train --images $PICTURES"
check engine 60 bash -c "bench engine --photos $PICTURES --added $PICTURES"
for preset in finetune paper; do
  check "$preset" $((SECONDS_EACH + 45)) "$PYTHON" tests/gpu/loss_curve.py "$preset" "$DATASET" \
    --seconds "$SECONDS_EACH" --out "$OUT/loss_$preset.csv" $SMALL
done

echo "Tables and curves are in $OUT. $SECONDS s. Failed: ${failed[*]:-nothing}"
[ "${#failed[@]}" -eq 0 ]
