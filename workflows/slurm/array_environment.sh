#!/usr/bin/env bash
# One participant of an array, from a virtual environment. Submitted by submit.sh.
#SBATCH --job-name=tumsyn-bids
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail

program=${TUMSYN_ENV:+$TUMSYN_ENV/bin/}tumsyn-bids
if [ "${1:-}" = group ]; then
    srun --ntasks=1 "$program" "$TUMSYN_BIDS" "$TUMSYN_OUT" group
    exit
fi
participant=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$TUMSYN_LIST")
# Processors and memory are read from the limits of the job. srun hands the warning of the batch
# system to the program, which then ends within seconds; the shell alone would swallow it.
# shellcheck disable=SC2086 # options are several words
srun --ntasks=1 "$program" "$TUMSYN_BIDS" "$TUMSYN_OUT" participant \
    --participant-label "$participant" -w "$TUMSYN_WORK/$participant" \
    --clean-workdir on-success ${TUMSYN_OPTIONS:-}
