#!/usr/bin/env bash
# After the array: merge the tables, list who failed. Submitted by submit.sh.
#SBATCH --job-name=tumsyn-group
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=00:30:00
set -euo pipefail

status=$TUMSYN_OUT/logs/status.tsv
if [ ! -f "$status" ]; then
    echo "no participant has left a record; see $TUMSYN_OUT/logs/slurm" >&2
    exit 1
fi
bash "$TUMSYN_RECIPE" group
# A task that was killed leaves no record: who is in the list and not complete is to be done.
failures=$TUMSYN_OUT/logs/slurm/failures.tsv
awk -F '\t' -v OFS='\t' '
    FNR == 1 && NR == 1 { for (i = 1; i <= NF; i++) column[$i] = i; next }
    FILENAME == ARGV[1] {
        label = "sub-" $column["participant"]
        seen[label] = 1
        if ($column["state"] == "failed") why[label] = $column["error"]
        next
    }
    label = $1 { if (!(label in seen)) print label, "no record: killed or not begun"
                 else if (label in why) print label, why[label] }
' "$status" "$TUMSYN_LIST" > "$failures"
count=$(wc -l < "$failures")
echo "$count participants of $(wc -l < "$TUMSYN_LIST") are not complete; see $failures"
[ "$count" -eq 0 ]
