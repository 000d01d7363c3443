"""Tollgate carried to a machine without a network, in one file or as wheels, and used there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODELS_DIR
from tests.delivery.isolation import ROOT, assert_served_without_network, needs, probed, without_network
from tests.plugins.processes import free_port

pytestmark = [pytest.mark.delivery, pytest.mark.timeout(600), needs("tar", "sha256sum")]

CHOSEN = ["--family", "openai", "--model", "qwen3-8b"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make bundle` packs, unpacked as the other machine would."""
    folder = tmp_path_factory.mktemp("bundle")
    environment = {**os.environ, "BIN": str(Path(sys.executable).parent), "MODELS_DIR": str(MODELS_DIR)}
    packed = [str(ROOT / "packaging/bundle.sh"), str(folder), *CHOSEN]
    subprocess.run(packed, env=environment, check=True, timeout=300)
    (bundle,) = folder.glob("tollgate-*.tar")
    subprocess.run(["tar", "xf", bundle.name], cwd=folder, check=True)
    return folder / bundle.name.removesuffix(".tar")


def served(place: Path, **environment: str) -> Any:
    port = free_port()
    serve = ["venv/bin/tollgate", "serve", "--port", str(port), "--host", "127.0.0.1"]
    return probed("", specification={"serve": serve, "port": port}, folder=place, **environment)


def test_bundle_installs_counts_and_serves_without_any_route(unpacked: Path, tmp_path: Path) -> None:
    without_network('PYTHON="$1" "$2/install.sh" "$3"', sys.executable, unpacked, "here", folder=tmp_path)
    place = tmp_path / "here"
    count = 'venv/bin/tollgate count --model "$1" --text "Hello, 世界！" --json'
    counted = json.loads(without_network(count, "gpt-4", folder=place))
    assert counted["token_count"] == 7
    found = served(place)
    assert_served_without_network(found)
    assert found["health"]["tokenizers"]["installed"] == 4  # OpenAI's three and qwen3's
    assert found["models"]["qwen3"]
    assert not found["models"]["llama-3"]


def test_wheel_of_tokenizers_counts_beside_tollgate_without_any_route(unpacked: Path, tmp_path: Path) -> None:
    tollgate = [sys.executable, "-m", "gateway", "tokenizers", "wheel", str(tmp_path / "carried"), *CHOSEN]
    subprocess.run(tollgate, env={**os.environ, "MODELS_DIR": str(MODELS_DIR)}, cwd=ROOT, check=True)
    install = """
    "$1" -m venv --without-pip venv
    venv/bin/python "$(ls "$2"/wheels/pip-*.whl)/pip" --isolated install --quiet --no-index \
      --find-links "$2/wheels" --find-links "$3" tollgate tollgate-tokenizers
    """
    without_network(install, sys.executable, unpacked, tmp_path / "carried", folder=tmp_path)
    (tmp_path / "config.yaml").write_bytes((ROOT / "config.yaml").read_bytes())
    found = served(tmp_path)
    assert_served_without_network(found)
    assert found["health"]["tokenizers"]["installed"] == 4
    assert not (tmp_path / "models").exists()


def test_bundle_is_not_installed_when_a_file_was_changed(unpacked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(unpacked), str(copy)], check=True)
    with (copy / "tokenizers.bundle").open("r+b") as file:
        file.seek(-2048, 2)
        file.write(b"changed")
    refused = subprocess.run(
        [str(copy / "install.sh"), "there"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "not as they were packed" in refused.stderr
    assert not (tmp_path / "there").exists()
