"""The image, built for real without a Docker engine, and run as its own settings say.

buildah builds (`--isolation chroot`), on a Debian that mmdebstrap makes from this machine's own package sources. What
is run is the image's file system, bind-mounted read-only, with the image's user, environment, entry point and volume.
So the layers, the permissions and the program are the real ones; what an engine adds (cgroups, seccomp, its network) is
not tried.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.delivery.isolation import ROOT, probed

BASE_PACKAGES = "python3,python3-venv,ca-certificates"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tollgate" / "base"

_PREPARED = """
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=0755 tmpfs /dev/shm && chmod 1777 /dev/shm
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for volume in $VOLUMES; do
  owner=$(stat -c %u:%g "$root$volume")
  mount -t tmpfs tmpfs "$root$volume"
  chown "$owner" "$root$volume"
done
[ -z "$TMPFS" ] || mount -t tmpfs -o mode=1777 tmpfs "$root$TMPFS"
"""


@dataclass(frozen=True)
class Builder:
    """buildah with a storage of its own."""

    folder: Path
    driver: str

    def command(self) -> list[str]:
        store = [f"--root={self.folder / 'storage'}", f"--runroot={self.folder / 'run'}"]
        return ["buildah", *store, f"--storage-driver={self.driver}"]

    def __call__(self, *arguments: str | Path) -> str:
        command = [*self.command(), *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The files of an image."""
        container = self("from", image)
        try:
            yield Path(self("mount", container))
        finally:
            self("rm", container)

    def size(self, image: str, *places: str) -> int:
        """How many bytes an image, or some folders of it, take on disk."""
        with self.mounted(image) as root:
            found = [str(root) + place for place in places or ("",)]
            done = subprocess.run(["du", "-xscB1", *found], check=True, stdout=subprocess.PIPE, text=True)
        return int(done.stdout.splitlines()[-1].split()[0])


@contextmanager
def builder() -> Iterator[Builder]:
    """A builder on overlay where that works, else on vfs, which copies every layer whole. All it made is removed."""
    folder = Path(tempfile.mkdtemp(prefix="tollgate-image-", dir="/var/tmp"))
    try:
        for driver in ("overlay", "vfs"):
            made = Builder(folder / driver, driver)
            probe = subprocess.run([*made.command(), "from", "scratch"], capture_output=True, check=False)
            if probe.returncode == 0:
                break
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_base(build: Builder) -> str:
    """A plain Debian with Python, made once a machine and kept, as an image."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)[
        "VERSION_CODENAME"
    ]
    kept = _CACHE / f"{release}.tar"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.tar")
        sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt").glob("sources.list")]
        debian = [str(path) for path in sources if "debian" in path.read_text(errors="replace")]
        command = ["mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", release, str(part), *debian]
        subprocess.run(command, check=True)
        part.replace(kept)
    container = build("from", "scratch")
    build("add", "--quiet", container, kept, "/")
    build("commit", "--quiet", "--rm", container, "localhost/base")
    return "localhost/base"


def make_image(build: Builder, *, base: str, families: str) -> str:
    """What `make image` builds, with the package registries that this machine's own clients use."""
    environment = {
        **os.environ,
        "BUILDER": shlex.join([*build.command(), "build", "--isolation", "chroot"]),
        "BASE_IMAGE": base,
        "FAMILIES": families,
        "TAG": "localhost/tollgate",
        "PIP_CONF": str(_pip_configuration(build.folder)),
    }
    authorities = os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt"
    for name, file in (("NPMRC", Path.home() / ".npmrc"), ("CA", Path(authorities))):
        if file.is_file():
            environment[name] = str(file)
    subprocess.run([str(ROOT / "packaging/image.sh")], env=environment, check=True)
    return "localhost/tollgate"


def _pip_configuration(folder: Path) -> Path:
    """This machine's pip settings that mean something elsewhere: where packages are, not what lies on its disk."""
    listed = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    lines = ["[global]"]
    for line in reversed(listed.splitlines()):  # the environment's are listed first, and win
        name, _, value = line.partition("=")
        key, value = name.rpartition(".")[2], value.strip("'")
        if key in ("index-url", "extra-index-url", "trusted-host", "proxy") and "file:" not in value:
            lines.append(f"{key} = {value}")
    lines.append("cert = /etc/ssl/certs/ca-certificates.crt")
    path = folder / "pip.conf"
    path.write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return path


def settings_of(build: Builder, image: str) -> dict[str, Any]:
    """User, environment, entry point, volumes and health check, as an engine would read them."""
    found: dict[str, Any] = json.loads(build("inspect", "--type", "image", image))["Docker"]["config"]
    return found


def run_read_only(
    root: Path, settings: dict[str, Any], *, port: int, folder: Path, tmpfs: str = "", **environment: str
) -> Any:
    """What a probe sees of the image run with a read-only root and no network but loopback."""
    variables = [*settings["Env"], f"PORT={port}", *(f"{name}={value}" for name, value in environment.items())]
    uid, gid = settings["User"].split(":")
    dropped = [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all"),
    ]

    def inside(command: Sequence[str]) -> list[str]:
        entered = ["chroot", str(root), "env", "-i", f"--chdir={settings['WorkingDir']}", *variables]
        return [*entered, *dropped, *command]

    kind, *check = settings["Healthcheck"]["Test"]
    assert kind == "CMD"
    writable = ["find", "/", "-xdev", "(", "-type", "d", "-o", "-type", "f", ")", "-writable", "-print"]
    specification = {
        "port": port,
        "serve": inside([*settings["Entrypoint"], *settings["Cmd"]]),
        "healthcheck": inside(check),
        "look": inside(writable),
    }
    volumes = " ".join(settings["Volumes"])
    return probed(_PREPARED, root, specification=specification, folder=folder, VOLUMES=volumes, TMPFS=tmpfs)
