#!/usr/bin/env bash
# Train the model that comes with the package, on a CPU, and put it in its place: first its twin,
# which knows nothing of sub-19 and is measured on it, then the model itself from there.
#
#   workflows/train_embedded.sh LABELMAPS PAIRS OUT [DERIVATIVES ...]
#
# LABELMAPS  folder of whole-head label maps with FreeSurfer numbers (SynthSeg's training maps)
# PAIRS      derivatives dataset of co-registered, brain-only contrasts (docs/model.md says which)
# OUT        folder of the runs; the same command goes on with a run that was interrupted
# DERIVATIVES  output directories of tumsyn-bids, whose acquired scans are more real pairs
#
# One thread on purpose: at these patch sizes a second one waits more than it works.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=1
tumsyn train synthesis "$3/twin" --labelmaps "$1" --pairs "$2" "${@:4}" \
    --exclude sub-19 training_seg_17.nii.gz --config embedded --steps "${STEPS:-32000}"
tumsyn train tails "$3/twin/model" --pairs "$2" --exclude sub-19
cp "$3"/twin/model/* "$here"/benchmarks/held_out/
tumsyn train synthesis "$3/all" --from "$3/twin/model" --labelmaps "$1" --pairs "$2" "${@:4}" \
    --exclude training_seg_17.nii.gz --steps "${MORE_STEPS:-3000}" --learning-rate 8e-5
tumsyn train tails "$3/all/model" --pairs "$2"
cp "$3"/all/model/* "$here"/tumsyn_bids/data/models/embedded/
python "$here"/benchmarks/synthesis_quality.py --data "$2" --subject sub-19 --fit-subject sub-07 \
    --model "$here"/benchmarks/held_out
