#!/bin/sh
# Installs Tollgate from the folder this stands in, and from nothing else: no network is used.
#   ./install.sh [FOLDER]              default: ./tollgate; gets venv/, models/ and config.yaml
#   PYTHON=python3.12 ./install.sh     the interpreter to use
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-tollgate}
python=${PYTHON:-python3}

wanted=$(cat "$here/python-version")
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') \
  || { echo "$python does not run: install Python $wanted, or say PYTHON=... ./install.sh" >&2; exit 3; }
if [ "$found" != "$wanted" ]; then
  echo "This bundle is for Python $wanted and $python is $found: say PYTHON=python$wanted ./install.sh," >&2
  echo "or make the bundle with Python $found." >&2
  exit 3
fi
(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS) \
  || { echo "The files are not as they were packed: copy the bundle again. Nothing was installed." >&2; exit 1; }

# pip runs from its own wheel, so that a Python without ensurepip (Debian's without python3-venv) does too.
"$python" -m venv --without-pip "$target/venv"
for pip in "$here"/wheels/pip-*.whl; do :; done
"$target/venv/bin/python" "$pip/pip" --isolated --disable-pip-version-check \
  install --quiet --no-index --find-links "$here/wheels" tollgate
"$target/venv/bin/tollgate" tokenizers import "$here/tokenizers.bundle" --dir "$target/models"
[ -e "$target/config.yaml" ] || cp "$here/config.yaml" "$target/config.yaml"
echo "Installed. Serve with: cd $target && venv/bin/tollgate serve"
