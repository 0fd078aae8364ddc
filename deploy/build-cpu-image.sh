#!/usr/bin/env bash
# Builds target `cpu` of the Dockerfile and runs it, with no Docker engine: debootstrap makes the base image, buildah
# the rest. Then it tests the image as the image's own user and without a network: JupyterLab must answer only with its
# token, and a second container on the same volume runs lessons 00 and 01, the latter with its vLLM server.
#
#   sudo deploy/build-cpu-image.sh [KEEP.tar]      KEEP.tar: save the image there, for `docker load`
#
# Needs root, the packages buildah, debootstrap, iproute2, util-linux and curl, 20 GB of disk in TMPDIR (/var/tmp);
# takes minutes. Leaves nothing behind, even when it fails or is interrupted.
# A network of your own is taken from the environment: PIP_FIND_LINKS (folder of wheels), SSL_CERT_FILE, PIP_CERT
# (bundle of certificates), DEBIAN_MIRROR, http_proxy and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

NEED_GB=20
BASE=localhost/$(sed -n 's/^ARG CPU_BASE=//p' Dockerfile)
IMAGE=localhost/engineroom:cpu
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}

die() { echo "build-cpu-image: $1" >&2; exit 1; }
say() { printf '\n== %s  (%d s)\n' "$1" "$SECONDS"; }

[ "$(id -u)" = 0 ] || die "needs root: sudo $0"
for tool in buildah debootstrap ip unshare; do
    command -v "$tool" >/dev/null || die "there is no $tool: apt-get install buildah debootstrap iproute2 util-linux"
done
STORE=$(mktemp --directory --tmpdir="${TMPDIR:-/var/tmp}" engineroom-image.XXXXXX)
builder() { nice buildah --root "$STORE/root" --runroot "$STORE/run" "$@"; }
clean_up() {
    status=$?
    trap - EXIT
    builder rm --all >/dev/null 2>&1 || true
    rm --recursive --force --one-file-system "$STORE"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
free=$(df --output=avail --block-size=1G "$STORE" | tail -1)
[ "$free" -ge "$NEED_GB" ] || die "${free} GB are free in $STORE, $NEED_GB are needed. Set TMPDIR to a larger disk."

say "base image $BASE by debootstrap"
base=$(builder from scratch)
nice debootstrap --variant=minbase bookworm "$(builder mount "$base")" "${DEBIAN_MIRROR:-}" >"$STORE/debootstrap.log" \
    || { tail -20 "$STORE/debootstrap.log"; die "debootstrap failed"; }
rm --force "$(builder mount "$base")"/var/cache/apt/archives/*.deb
builder config --cmd bash "$base"
builder commit --quiet --rm "$base" "$BASE"

say "Dockerfile, target cpu"
options=(--build-arg "CPU_BASE=$BASE")
for name in PIP_FIND_LINKS SSL_CERT_FILE PIP_CERT; do
    where=${!name:-}
    [ -z "$where" ] || options+=(--build-arg "$name=/mnt/$name" --volume "$where:/mnt/$name:ro")
done
builder build --format docker --pull=never --target cpu --tag "$IMAGE" "${options[@]}" .

say "JupyterLab and lessons in two containers of it, without a network"
install --directory --owner 1000 --group 1000 "$STORE/data"
lab=$(builder from --pull=never "$IMAGE")
next=$(builder from --pull=never "$IMAGE")
builder config --volume /data- "$lab"  # buildah's own volume would hide the mount
builder config --volume /data- "$next"
in_container() { builder run --volume "$STORE/data:/data" "$1" -- "${@:2}"; }
export -f builder in_container
export STORE lab next
# shellcheck disable=SC2016  # the inner shell expands
unshare --net --pid --fork --kill-child --mount-proc bash -euo pipefail -c '
    ip link set lo up
    in_container "$lab" bash -c "id; ls -A"
    in_container "$lab" python deploy/check_lab.py
    in_container "$next" ls -A /data/work  # what the first one left in the volume
    in_container "$next" engineroom run 00 01'

if [ $# -gt 0 ]; then
    say "saving to $1"
    builder push --quiet "$IMAGE" "docker-archive:$STORE/image.tar:engineroom:cpu"
    mv "$STORE/image.tar" "$1"
fi
builder images
say "ok: built and run"
