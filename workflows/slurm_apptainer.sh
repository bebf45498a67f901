#!/usr/bin/env bash
# One job of an array per participant, each in an Apptainer container. Set the four paths, then:
#
#   sbatch --array=1-$(ls -d /path/to/bids/sub-*/ | wc -l) workflows/slurm_apptainer.sh
#
# When all have ended, merge their tables:
#
#   apptainer run … tumsyn-bids.sif /data /out group
#SBATCH --job-name=tumsyn-bids
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=02:00:00
#SBATCH --output=tumsyn-%A_%a.log
set -euo pipefail

image=/path/to/tumsyn-bids.sif
bids=/path/to/bids
out=/path/to/derivatives/tumsyn-bids
work=/path/to/scratch/tumsyn-bids

folders=("$bids"/sub-*/)
participant=$(basename "${folders[SLURM_ARRAY_TASK_ID - 1]}")
mkdir -p "$out" "$work/$participant"

# Processors and memory are read from the limits of the job. Each job has a work folder of its own.
exec apptainer run --cleanenv --no-home \
    -B "$bids:/data:ro,$out:/out,$work/$participant:/work" "$image" \
    /data /out participant --participant-label "$participant" -w /work --clean-workdir on-success
