#!/bin/bash
# Build the image of the Dockerfile and run it where no container engine can: as root on Debian,
# with buildah (chroot isolation), debootstrap and bubblewrap.
#
#   workflows/container/try_without_engine.sh WORK [OPTIONS OF buildah build ...]
#
# The base image is made by debootstrap and takes the place of python:3.11-slim-bookworm. Then one
# participant of the phantom runs in the image: read-only root, no network, no home, an unknown
# user, nothing of the host's environment.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
shift
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

if ! buildah inspect --type image localhost/python-base >/dev/null 2>&1; then
    packages=python3,python3-venv,python3-pip,libgomp1,ca-certificates
    debootstrap --variant=minbase --include=$packages bookworm "$work/base"
    ln -sf python3 "$work/base/usr/bin/python"
    base=$(buildah from scratch)
    buildah add -q "$base" "$work/base" /
    buildah config --env PATH=/usr/local/bin:/usr/bin:/bin "$base"
    buildah commit -q "$base" localhost/python-base
    buildah rm "$base"
fi
buildah build --layers --network host --build-arg PYTHON_IMAGE=localhost/python-base "$@" \
    -t tumsyn-bids "$repository"
buildah images tumsyn-bids

container=$(buildah from tumsyn-bids)
trap 'buildah rm "$container" >/dev/null' EXIT
root=$(buildah mount "$container")
mkdir -p "$root/data" "$root/out" "$root/work"
mkdir -p "$work/out" "$work/work"
chmod 777 "$work/out" "$work/work"
mapfile -t variables < <(buildah inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container")
arguments=()
for variable in "${variables[@]}"; do
    [ -n "$variable" ] && arguments+=(--setenv "${variable%%=*}" "${variable#*=}")
done
bwrap --ro-bind "$root" / --dev /dev --proc /proc --tmpfs /tmp --unshare-all --uid 12345 \
    --gid 12345 --clearenv "${arguments[@]}" --chdir /tmp --die-with-parent \
    --ro-bind "$repository/data/ds-phantom" /data --bind "$work/out" /out \
    --bind "$work/work" /work \
    tumsyn-bids /data /out participant -w /work --participant-label 02
