#!/usr/bin/env bash
# Train a stage on several GPUs and nodes, one process per GPU.
#
#   sbatch workflows/slurm/train.sh text-image OUT --labelmaps MAPS
#   sbatch workflows/slurm/train.sh synthesis OUT --labelmaps MAPS --config paper --recipe paper
#
# The number of nodes and of GPUs are those of the job (sbatch --nodes 2 --ntasks-per-node 4
# --gres gpu:4 …). A job that is requeued or submitted again goes on where it stopped.
#SBATCH --job-name=tumsyn-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
export OMP_NUM_THREADS=1
exec srun tumsyn train "$@" --accelerator cuda \
    --nodes "${SLURM_NNODES:-1}" --devices "${SLURM_NTASKS_PER_NODE:-1}"
