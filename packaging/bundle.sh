#!/bin/sh
# Writes all of Tollgate to one file for machines without a network: wheels, tokenizers, config.yaml, install.sh.
#   packaging/bundle.sh FOLDER [OPTIONS OF `tollgate tokenizers export`, such as --family openai]
# The wheels are for this Python and this machine's kind. `make bundle` calls this.
set -eu
cd "$(dirname "$0")/.."
bin=${BIN:-.venv/bin}
folder=${1:-dist}
[ $# -eq 0 ] || shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=$("$bin/python" - <<'PYTHON'
import sys, sysconfig, tomllib
version = tomllib.load(open("pyproject.toml", "rb"))["project"]["version"]
print(f"tollgate-{version}-cp{sys.version_info[0]}{sys.version_info[1]}-{sysconfig.get_platform()}".replace("_", "-"))
PYTHON
)
top=$work/$name
mkdir -p "$top" "$folder"

# From a copy: an old build/ folder of this tree would get into the wheel.
mkdir "$work/source"
cp -R pyproject.toml README.md LICENSE gateway policies tokenizers_offline "$work/source"
echo "Collecting wheels"
"$bin/python" -m pip wheel --quiet --disable-pip-version-check --wheel-dir "$top/wheels" "$work/source" pip
"$bin/tollgate" tokenizers export "$top/tokenizers.bundle" "$@"
cp config.yaml LICENSE docs/air-gapped.md packaging/install.sh "$top"
"$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' > "$top/python-version"
(cd "$top" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum > "$work/sums" && mv "$work/sums" SHA256SUMS)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work" -cf "$folder/$name.tar.part" "$name"
mv "$folder/$name.tar.part" "$folder/$name.tar"
echo "$folder/$name.tar ($(du -m "$folder/$name.tar" | cut -f1) MB). On the other machine: tar xf it, then ./install.sh in it."
