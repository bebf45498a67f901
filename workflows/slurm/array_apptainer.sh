#!/usr/bin/env bash
# One participant of an array, in an Apptainer container. Submitted by submit.sh.
#SBATCH --job-name=tumsyn-bids
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail

nv=${TUMSYN_NV:-} # array_gpu.sh sets it
image=${TUMSYN_IMAGE:?set TUMSYN_IMAGE to the image, tumsyn-bids.sif}
# Processors and memory are read from the limits of the job. srun hands the warning of the batch
# system to the program, which then ends within seconds; the shell alone would swallow it.
tumsyn() {
    # shellcheck disable=SC2086 # options are several words
    srun --ntasks=1 apptainer run --cleanenv --no-home $nv \
        -B "$TUMSYN_BIDS:/data:ro,$TUMSYN_OUT:/out,$1:/work" "$image" /data /out "${@:2}"
}
if [ "${1:-}" = group ]; then
    tumsyn "$TUMSYN_WORK" group
    exit
fi
participant=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$TUMSYN_LIST")
mkdir -p "$TUMSYN_WORK/$participant"
# shellcheck disable=SC2086
tumsyn "$TUMSYN_WORK/$participant" participant --participant-label "$participant" -w /work \
    --clean-workdir on-success ${TUMSYN_OPTIONS:-}
