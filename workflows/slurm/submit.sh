#!/usr/bin/env bash
# Process a BIDS dataset on a cluster: an array of one task per participant, then the group level.
#
#   workflows/slurm/submit.sh RECIPE BIDS_DIR OUTPUT_DIR WORK_DIR [options of sbatch]
#
# RECIPE is one of the array_*.sh beside this file. Submit the same again to resume: what is done
# is not done again. Options of sbatch go to the array, for instance: --partition long --mem 24G
# TUMSYN_OPTIONS  options of tumsyn-bids, for instance: TUMSYN_OPTIONS='--contrasts all'
# TUMSYN_IMAGE    the Apptainer image; TUMSYN_ENV the virtual environment of array_environment.sh
# TUMSYN_AT_ONCE  most tasks to run at a time (default 100)
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
recipe=$(realpath "$1") bids=$(realpath "$2") out=$3 work=$4
shift 4
mkdir -p "$out/logs/slurm" "$work"
out=$(realpath "$out") work=$(realpath "$work")

# The list is fixed now, so that a task means the same participant however long it waits.
list=$(mktemp "$out/logs/slurm/participants-XXXXXX.txt")
for folder in "$bids"/sub-*/; do
    [ -d "$folder" ] && basename "$folder"
done > "$list"
count=$(wc -l < "$list")
if [ "$count" -eq 0 ]; then
    echo "no sub-* folders in $bids" >&2
    exit 2
fi
export TUMSYN_RECIPE=$recipe TUMSYN_LIST=$list TUMSYN_BIDS=$bids TUMSYN_OUT=$out TUMSYN_WORK=$work
array=$(sbatch --parsable --array="1-$count%${TUMSYN_AT_ONCE:-100}" \
    --output="$out/logs/slurm/%A_%a.log" "$@" "$recipe")
array=${array%%;*}
# After all have ended, well or not: the tables say who failed.
group=$(sbatch --parsable --dependency="afterany:$array" \
    --output="$out/logs/slurm/%j_group.log" "$here/group.sh")
echo "array $array with $count participants, group ${group%%;*}, logs in $out/logs/slurm"
