"""The promise in one test: with sockets forbidden, tokenizers load and count."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tokenizers_offline.conftest import MODELS_DIR

COUNT_WITHOUT_SOCKETS = """
import sys

opened = []

def forbid(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "subprocess.", "os.exec", "os.posix_spawn")):
        opened.append(event)
        raise RuntimeError(f"forbidden: {event}")

sys.addaudithook(forbid)

from pathlib import Path

from tokenizers_offline.catalog import Catalog
from tokenizers_offline.counter import TokenCounter
from tokenizers_offline.encoders import Encoders
from tokenizers_offline.prompt import ChatPrompt, Dialect, Message, TextPart, TextPrompt
from tokenizers_offline.store import TokenizerStore

store = TokenizerStore(Path(sys.argv[1]))
counter = TokenCounter(Catalog.load(), Encoders(store), store)
chat = ChatPrompt(Dialect.OPENAI_CHAT, (Message("user", (TextPart("Hello"),)),))
for model in ("gpt-3.5-turbo", "qwen2.5-7b-instruct", "deepseek-coder", "claude-3-opus"):
    assert counter.count(model, TextPrompt(("Hello, world",))).input_tokens > 0, model
    assert counter.count(model, chat).input_tokens > 0, model
reference = Encoders(store, engine="reference").get("deepseek-coder")
assert reference.count("Hello", specials=True) == 1
fetchers = {"tokenizers_offline.sources", "tokenizers_offline.registries", "huggingface_hub"} & set(sys.modules)
assert not fetchers, fetchers
assert not opened, opened
print("counted")
"""


def test_tokenizers_load_and_count_when_sockets_are_forbidden() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_WITHOUT_SOCKETS, str(MODELS_DIR)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "counted\n"), done.stderr
