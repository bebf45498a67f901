#!/usr/bin/env bash
# One participant of an array, in an Apptainer container with a GPU. Submitted by submit.sh;
# name your partition there: submit.sh workflows/slurm/array_gpu.sh … --partition gpu
#SBATCH --job-name=tumsyn-bids
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
set -euo pipefail

# A GPU that is asked for and absent is an error, never a silent fall-back to the processor.
export TUMSYN_NV=--nv TUMSYN_OPTIONS="--device cuda ${TUMSYN_OPTIONS:-}"
[ "${1:-}" = group ] && export TUMSYN_NV=
exec bash "$(dirname "$TUMSYN_RECIPE")/array_apptainer.sh" "$@"
