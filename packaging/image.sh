#!/bin/sh
# Builds the container image with what is here: a Docker engine, else podman, else buildah. `make image` calls this.
#   TAG=tollgate:latest  BASE_IMAGE=...  FAMILIES="openai qwen deepseek"   see the Dockerfile
#   PIP_CONF=FILE  NPMRC=FILE  CA=FILE   how package registries are reached; used while building, never in the image
#   BUILDER="buildah build --isolation chroot"   what builds, when it shall not be guessed
set -eu
cd "$(dirname "$0")/.."

if [ -n "${BUILDER:-}" ]; then builder=$BUILDER
elif docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then builder="docker build"
elif command -v podman >/dev/null 2>&1; then builder="podman build"
elif command -v buildah >/dev/null 2>&1; then builder="buildah build"
else
  echo "Nothing here can build an image: start a Docker engine, or install podman or buildah (apt-get install buildah)." >&2
  exit 3
fi
# Without an engine images are OCI's by default, and those know no HEALTHCHECK.
case $builder in docker*) ;; *) builder="$builder --format docker" ;; esac

for given in pip.conf:"${PIP_CONF:-}" npmrc:"${NPMRC:-}" ca.pem:"${CA:-}"; do
  file=${given#*:}
  [ -n "$file" ] || continue
  [ -r "$file" ] || { echo "$file cannot be read." >&2; exit 1; }
  set -- "$@" --secret "id=${given%%:*},src=$file"
done
[ -z "${BASE_IMAGE:-}" ] || set -- "$@" --build-arg "BASE_IMAGE=$BASE_IMAGE"
[ -z "${FAMILIES:-}" ] || set -- "$@" --build-arg "FAMILIES=$FAMILIES"
echo "Building ${TAG:-tollgate:latest} with $builder"
# shellcheck disable=SC2086 # the builder is several words
DOCKER_BUILDKIT=1 exec $builder "$@" --tag "${TAG:-tollgate:latest}" .
