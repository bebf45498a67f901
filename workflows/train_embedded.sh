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
# All of the network first, then the parts of its decoder that read tissues and that correct by place
# and grey levels.
# One thread on purpose: a second one waits more than it works. Both runs of a stage can go side by
# side on two processors.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=1
maps=$1 pairs=$2 out=$3
shift 3
whole=(--labelmaps "$maps" --pairs "$pairs" "$@")
unseen=training_seg_17.nii.gz
tissues=(--recipe tissues --labelmaps "$maps" --exclude "$unseen" --learning-rate 2e-3
    --steps "${TISSUE_STEPS:-4000}")
correction=(--recipe correction --labelmaps "$maps" --real-share 0.75 --learning-rate 2e-3
    --steps "${CORRECTION_STEPS:-1500}")
# Real people alone in the end: they are fewer than the simulated ones and harder.
refined=(--recipe correction --learning-rate 1e-3 --steps "${REFINED_STEPS:-400}")

tumsyn train synthesis "$out/twin" "${whole[@]}" --exclude sub-19 "$unseen" \
    --config embedded --steps "${STEPS:-32000}"
tumsyn train synthesis "$out/twin-tissues" --from "$out/twin/model" "${tissues[@]}"
# Who is given several times is seen as often: half of the real samples are of PAIRS.
tumsyn train synthesis "$out/twin-corrected" --from "$out/twin-tissues/model" "${correction[@]}" \
    --pairs "$pairs" "$pairs" "$pairs" "$@" --exclude sub-19 "$unseen"
tumsyn train synthesis "$out/twin-refined" --from "$out/twin-corrected/model" "${refined[@]}" \
    --pairs "$pairs" "$pairs" "$pairs" "$@" --exclude sub-19
tumsyn train tails "$out/twin-refined/model" --pairs "$pairs" --exclude sub-19
cp "$out"/twin-refined/model/* "$here"/benchmarks/held_out/

tumsyn train synthesis "$out/all" --from "$out/twin/model" "${whole[@]}" \
    --exclude "$unseen" --steps "${MORE_STEPS:-3000}" --learning-rate 8e-5
tumsyn train synthesis "$out/all-tissues" --from "$out/all/model" "${tissues[@]}"
tumsyn train synthesis "$out/all-corrected" --from "$out/all-tissues/model" "${correction[@]}" \
    --pairs "$pairs" "$pairs" "$@" --exclude "$unseen"
tumsyn train synthesis "$out/all-refined" --from "$out/all-corrected/model" "${refined[@]}" \
    --pairs "$pairs" "$pairs" "$@"
tumsyn train tails "$out/all-refined/model" --pairs "$pairs"
cp "$out"/all-refined/model/* "$here"/tumsyn_bids/data/models/embedded/
python "$here"/benchmarks/synthesis_quality.py --data "$pairs" --subject sub-19 \
    --fit-subject sub-07 --model "$here"/benchmarks/held_out
