"""The documentation is run: its requests against a real gateway, its configuration through the loader."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import typing
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from pydantic import BaseModel

from gateway.cli import COMMANDS
from gateway.config import load_settings
from gateway.config.reference import renewed
from gateway.config.schema import ConfigFile
from gateway.config.sources import ENVIRONMENT, OPTIONS
from tests.conftest import MODELS_DIR, digest
from tokenizers_offline.catalog import Catalog

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A piece of code in a document, and where it stands. `shown` is the JSON right after it, "" if there is none."""

    language: str
    text: str
    place: str
    shown: str

    @staticmethod
    def all_of(document: Path) -> list[Block]:
        text = document.read_text(encoding="utf-8")
        found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        blocks = []
        for match, following in itertools.zip_longest(found, found[1:]):
            adjoins = following is not None and following[1] == "json" and following.start() - match.end() <= 1
            place = f"{document.stem}-{text.count(chr(10), 0, match.start()) + 1}"
            blocks.append(Block(match[1], match[2], place, following[2] if adjoins else ""))
        return blocks


BLOCKS = [block for document in DOCUMENTS for block in Block.all_of(document)]
REQUESTS = [block for block in BLOCKS if block.language == "bash"]
PROGRAMS = [block for block in BLOCKS if block.language == "python"]
CONFIGURATIONS = [block for block in BLOCKS if block.language == "yaml"]


class Served(NamedTuple):
    address: str
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shipped config.yaml, served as `make run` does, on a free port; and the folder that its store is in."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("readme")
    environment = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "TOLLGATE_STORE": f"sqlite:///{folder / 'tollgate.db'}",
        "MODELS_DIR": str(MODELS_DIR),
    }
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(ROOT / "config.yaml")],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, (folder / "output").read_text()
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer,
        ):
            assert answer.status == 200
            break
        assert time.monotonic() < deadline, "the gateway does not answer"
        time.sleep(0.05)
    yield Served(f"127.0.0.1:{port}", folder)
    process.terminate()
    assert process.wait(timeout=15) == 0
    logged = (folder / "output").read_text()
    assert "Traceback" not in logged
    assert "sk-demo" not in logged


def test_there_are_requests_and_programs_to_run() -> None:
    assert len([block for block in REQUESTS if block.shown]) >= 5
    assert len(PROGRAMS) >= 3
    assert len(CONFIGURATIONS) >= 6


@pytest.mark.parametrize("block", REQUESTS, ids=lambda block: block.place)
def test_request_answers_what_is_shown(served: Served, block: Block) -> None:
    command = block.text.replace("localhost:8000", served.address).replace("curl -s", "curl -s --fail-with-body")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, timeout=30, check=True
    )
    answer = json.loads(done.stdout)
    shown = json.loads(block.shown) if block.shown else {}
    assert {name: answer.get(name) for name in shown} == shown


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.place)
def test_program_runs(served: Served, block: Block) -> None:
    program = block.text.replace("localhost:8000", served.address)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=served.folder
    )
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout.strip()) is ("print(" in program)


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_configuration_shown_is_accepted(tmp_path: Path, block: Block) -> None:
    path = tmp_path / "config.yaml"
    rest = "" if "upstreams:" in block.text else 'upstreams: [{name: echo, url: "echo:"}]\n'
    path.write_text(block.text + rest, encoding="utf-8")
    load_settings(path, env=dict.fromkeys(re.findall(r"\$\{(\w+)\}", block.text), "x"))


def test_shipped_config_is_accepted_and_has_the_demo_key() -> None:
    settings = load_settings(ROOT / "config.yaml", env={})
    assert [key.digest for key in settings.policy.keys] == [digest("sk-demo")]
    assert [upstream.url for upstream in settings.upstreams] == ["echo:"]


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from sections(inner)


def test_shipped_config_names_every_option() -> None:
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    named = {name for section in sections(ConfigFile) for name in section.model_fields}
    assert {"hold_timeout", "deployments", "cached"} <= named
    assert not {
        name for name in named if not re.search(rf"\b{name}: ", text) and not re.search(rf"\b{name}:$", text, re.M)
    }


def test_shipped_config_is_accepted_with_every_comment_taken_away(tmp_path: Path) -> None:
    """What is commented out must work once somebody needs it."""
    text = (ROOT / "config.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^( +)# ( *(?:- )?[a-z_-]+: .*|- \{.*)$", r"\1\2", text, flags=re.MULTILINE)
    text = text.replace("models: {}", "models:").replace("admin: {}", "admin:")
    text = text.replace('#  digest: "sha256:..."', f'  digest: "{digest("admin")}"')
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    keys = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_OPENAI_API_KEY", "DEMO_OPENAI_KEY")
    settings = load_settings(path, env=dict.fromkeys(keys, "x"))
    assert [upstream.name for upstream in settings.upstreams] == [
        "openai",
        "anthropic",
        "gemini",
        "azure",
        "own",
        "echo",
    ]
    assert settings.server.tls is not None
    assert settings.tokenizers.models.keys() == {"my-finetune", "my-model"}
    budget = settings.policy.budgets[0]
    assert (budget.mode, budget.output_hold, len(budget.limits)) == ("shadow", "clamp", 6)
    assert settings.policy.keys[0].disabled


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", document.read_text(encoding="utf-8")):
        assert not target.startswith("http"), f"{target}: documents stand on their own"
        led_to = document.parent / target if target else document
        assert led_to.exists(), f"{document.name} links to {target}"
        if anchor:
            assert anchor in anchors(led_to), f"{document.name} links to #{anchor} of {led_to.name}"


def anchors(document: Path) -> set[str]:
    """What headings can be linked to as: lower case, words joined by hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_models_table_is_what_the_catalog_says() -> None:
    catalog = Catalog.load()
    rows = re.findall(r"^\| (`.+?) \| (.+?) \| (exact|bounded|estimate) \|$", README, re.MULTILINE)
    assert len(rows) > 30
    for names, encoding, accuracy in rows:
        for name in re.findall(r"`([^`]+)`", names):
            spec = catalog.resolve(name)
            assert spec.accuracy == accuracy, f"{name} is {spec.accuracy}"
            if encoding.startswith("`"):
                assert spec.encoding == encoding.strip("`"), f"{name} is counted with {spec.encoding}"


def test_every_section_of_the_configuration_is_in_the_readme() -> None:
    for name in ("server", "store", "tokenizers", "upstreams", "keys", "budgets", "output_hold", "admin", "time_zone"):
        assert f"`{name}`" in README


def test_reference_is_what_the_schema_says() -> None:
    path = ROOT / "docs" / "configuration.md"
    text = path.read_text(encoding="utf-8")
    assert text == renewed(text), "run `make fix`"


def test_every_override_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in ENVIRONMENT:
        assert f"`{name}`" in text
    for name in OPTIONS:
        assert f"`--{name.replace('_', '-')}`" in text


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    names = {re.split(r"[\[<>=;\s]", each)[0] for each in listed} - {"tollgate"}
    assert not {name for name in names if not re.search(rf"\b{re.escape(name)}\b", text)}


def test_every_package_of_a_vocabulary_is_credited() -> None:
    listed = yaml.safe_load((ROOT / "tokenizers_offline" / "encodings.yaml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "vocabularies.md").read_text(encoding="utf-8")
    assert not {name for name in listed["packages"] if f"`{name}`" not in text}
    assert not {name for name in listed["encodings"] if f"`{name}`" not in text}
    only_npm = {
        name
        for name, encoding in listed["encodings"].items()
        if all(listed["packages"].get(source.get("package"), {}).get("from") == "npm" for source in encoding["sources"])
    }
    without_npm = text.partition("## Without npm, without a network")[2]
    assert {name for name in only_npm if f"`{name}`" not in without_npm} == set()


def test_commands_and_targets_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"`make ([a-z]+)", text)) <= targets, document.name
        assert set(re.findall(r"`tollgate ([a-z]+)", text)) <= set(COMMANDS), document.name


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 250
