#!/usr/bin/env bash
# Process a BIDS dataset in the container: no network, nothing written but the two folders given.
#
#   workflows/run_docker.sh BIDS_DIR OUTPUT_DIR WORK_DIR [options of tumsyn-bids]
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n 's/^#   //p' "$0" >&2
    exit 2
fi
bids=$(realpath "$1") out=$2 work=$3
shift 3
mkdir -p "$out" "$work" # docker would make them for root
exec docker run --rm --network none --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
    -v "$bids:/data:ro" -v "$(realpath "$out"):/out" -v "$(realpath "$work"):/work" \
    "${TUMSYN_IMAGE:-tumsyn-bids}" /data /out participant -w /work "$@"
