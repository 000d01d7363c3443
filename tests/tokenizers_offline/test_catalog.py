import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenizers_offline.catalog import LONGEST_NAME, Catalog, CatalogError, Override
from tokenizers_offline.encodings import load_encodings
from tokenizers_offline.prompt import Accuracy, UnknownModel

CATALOG = Catalog.load()


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-35-turbo-16k", "cl100k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-2024-08-06", "o200k_base"),
        ("GPT-4o-Mini", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4.5-preview", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.4-nano-2026-01-01", "o200k_base"),
        ("gpt-5.2_2025-12-11", "o200k_base"),
        ("o1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("o4-mini-2025-04-16", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("azure/gpt-4o", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:acme::AbC123", "o200k_base"),
        ("ft:gpt-3.5-turbo:acme:name:id", "cl100k_base"),
        ("openai/gpt-oss-120b:exacto", "o200k_harmony"),
        ("openai.gpt-oss-20b-1:0", "o200k_harmony"),
        ("text-embedding-3-small", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("qwen", "qwen"),
        ("Qwen/Qwen-7B-Chat", "qwen"),
        ("qwen1.5-32b-chat", "qwen2"),
        ("qwen2-72b-instruct", "qwen2"),
        ("qwen2-57b-a14b", "qwen2"),
        ("qwen2.5-72b-instruct-awq", "qwen2.5"),
        ("qwen2p5-coder-32b", "qwen2.5"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("qwen.qwen3-32b-v1:0", "qwen3"),
        ("qwen3.5", "qwen3.5"),
        ("qwen3.6:latest", "qwen3.5"),
        ("qwq-32b-preview", "qwq"),
        ("deepseek-coder", "deepseek-coder"),
        ("deepseek-ai/deepseek-coder-33b-base", "deepseek-coder"),
        ("deepseek-coder-v1.5", "deepseek-coder-v1.5"),
        ("deepseek-coder-7b-instruct-v1.5", "deepseek-coder-v1.5"),
        ("deepseek-coder-v2-lite-instruct", "deepseek-v2.5"),
        ("deepseek-llm-67b-chat", "deepseek-llm"),
        ("deepseek-math-7b-rl", "deepseek-v2"),
        ("deepseek-moe-16b-base", "deepseek-llm"),
        ("deepseek-v2", "deepseek-v2"),
        ("deepseek-v2.5-1210", "deepseek-v2.5"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("deepseek/deepseek-chat-v3-0324", "deepseek-v3"),
        ("deepseek-v3.1-terminus", "deepseek-v3.1"),
        ("accounts/fireworks/models/deepseek-v3p1", "deepseek-v3.1"),
        ("deepseek-v3.2-exp", "deepseek-v3.2"),
        ("deepseek-v4-flash", "deepseek-v4"),
        ("deepseek-r1-0528", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2.5"),
        ("deepseek-r1-distill-llama-70b", "llama-3.1"),
        ("@cf/deepseek-ai/deepseek-r1-distill-qwen-32b", "qwen2.5"),
        ("deepseek-chat", "deepseek-v3.2"),
        ("deepseek-reasoner", "deepseek-v3.2"),
        ("claude-3-opus-20240229", "o200k_base"),
        ("claude-2.1", "claude-legacy"),
        ("anthropic/claude-sonnet-4.5", "o200k_base"),
        ("claude-3-5-sonnet@20240620", "o200k_base"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", "o200k_base"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-1-20250805-v1:0", "o200k_base"),
        ("llama-2-70b-chat", "llama-2"),
        ("meta-llama/Llama-3-8B", "llama-3"),
        ("meta-llama/Meta-Llama-3.1-405B-Instruct", "llama-3.1"),
        ("us.meta.llama3-3-70b-instruct-v1:0", "llama-3.2"),
        ("accounts/fireworks/models/llama-v3p2-3b-instruct", "llama-3.2"),
        ("llama3.2:1b", "llama-3.2"),
        ("llama-3.3-70b-versatile", "llama-3.2"),
        ("databricks-meta-llama-3-3-70b-instruct", "llama-3.2"),
        ("chatglm3-6b", "chatglm3"),
        ("glm-4-9b-chat", "glm-4"),
        ("glm-4-32b-0414", "glm-4-0414"),
        ("glm-4.5-air", "glm-4.5"),
        ("z-ai/glm-4.6:exacto", "glm-4.5"),
        ("zai-glm-4.7", "glm-4.7"),
        ("glm-5.2", "glm-4.7"),
        ("baichuan2-13b-chat", "baichuan2"),
        ("internlm2_5-7b-chat", "internlm2"),
        ("gemma-7b-it", "gemma1"),
        ("gemma2-9b-it", "gemma2"),
        ("gemma3:1b", "gemma3"),
        ("models/gemini-2.5-flash", "gemma3"),
        ("gemini-3-flash-preview", "gemma3"),
        ("mistral-7b-instruct-v0.2", "mistral-v1"),
        ("mixtral-8x7b-instruct", "mistral-v1"),
        ("mistral-small-latest", "mistral-nemo"),
        ("open-mistral-nemo", "mistral-nemo"),
        ("minimax-m1", "minimax-m1"),
        ("minimax-m3", "minimax-m3"),
        ("yi-34b-chat", "yi"),
        ("command-r-plus-08-2024", "command-r"),
    ],
)
def test_resolve_names_the_encoding(model: str, encoding: str) -> None:
    assert CATALOG.resolve(model).encoding == encoding


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4-vision-preview", "gpt-4-turbo"),
        ("claude-3-opus-20240229", "claude-3"),
        ("claude-3-5-haiku-latest", "claude-3.5"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3.7"),
        ("claude-sonnet-4-20250514", "claude-4"),
        ("claude-opus-4-1", "claude-4"),
        ("claude-haiku-4-5@20251001", "claude-4.5"),
        ("claude-sonnet-4-6", "claude-4.6"),
        ("claude-opus-4-8", "claude-opus-4.7"),
        ("claude-fable-5", "claude-5"),
        ("claude-next", "claude-5"),
        ("deepseek-r1:7b", "deepseek-r1-distill-qwen"),
        ("deepseek-r1:latest", "deepseek-r1-qwen3"),
        ("deepseek-r1:671b", "deepseek-r1"),
        ("qwen-max-latest", "qwen-max"),
    ],
)
def test_resolve_names_the_family(model: str, family: str) -> None:
    assert CATALOG.resolve(model).family == family


@pytest.mark.parametrize(
    "model", ["chatglm", "chatglm-6b", "baichuan-13b", "internlm-7b", "grok-4", "kimi-k2", "nova-pro"]
)
def test_resolve_labels_siblings_as_estimates(model: str) -> None:
    spec = CATALOG.resolve(model)
    assert spec.accuracy is Accuracy.ESTIMATE
    assert spec.notes


@pytest.mark.parametrize("model", ["claude-3-haiku", "claude-sonnet-5", "anthropic.claude-v2:1"])
def test_resolve_labels_claude_as_estimate(model: str) -> None:
    assert CATALOG.resolve(model).accuracy is Accuracy.ESTIMATE


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4x-unknown-thing",
        "my-gpt-4o",
        "gpt-4o2",
        "gpt-6",
        "qwen30",
        "o10",
        "adam",
        "automatic",
        "",
        " ",
        "/",
        "gpt",
    ],
)
def test_resolve_refuses_when_no_name_matches(model: str) -> None:
    with pytest.raises(UnknownModel):
        CATALOG.resolve(model)


def test_resolve_names_the_nearest_when_unknown() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.resolve("gpt-4p")
    assert "gpt-4" in caught.value.nearest
    assert "gpt-4o" in str(caught.value)


def test_resolve_refuses_unread_when_the_name_is_huge() -> None:
    with pytest.raises(UnknownModel) as caught:
        CATALOG.resolve("gpt-4o" + "-x" * LONGEST_NAME)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=80))
def test_resolve_answers_or_refuses_whatever_the_name(model: str) -> None:
    try:
        spec = CATALOG.resolve(model)
    except UnknownModel:
        return
    assert spec.name == model
    assert spec.encoding in CATALOG.encodings()


def test_every_family_resolves_to_itself() -> None:
    for spec in CATALOG.models():
        assert CATALOG.resolve(spec.name).family == spec.name


def test_own_vocabulary_replaces_the_sibling_when_installed() -> None:
    spec = Catalog.load(installed=["baichuan"]).resolve("baichuan-7b")
    assert (spec.encoding, spec.accuracy, spec.notes) == ("baichuan", Accuracy.EXACT, ())


def test_override_counts_like_another_model() -> None:
    catalog = Catalog.load({"My-Deployment": Override(like="gpt-4o", max_output_tokens=77)})
    spec = catalog.resolve("my-deployment")
    assert (spec.encoding, spec.layout, spec.max_output_tokens) == ("o200k_base", "openai", 77)
    assert spec.options["bare_name"] == "gpt-4o"
    assert catalog.models()[0].family == "my-deployment"


def test_override_takes_an_encoding_and_a_family_s_layout() -> None:
    spec = Catalog.load({"mine": Override(encoding="qwen3", layout="qwen3")}).resolve("mine")
    assert (spec.encoding, spec.layout, spec.template) == ("qwen3", "jinja", "qwen3")


def test_override_lays_out_an_unheard_of_encoding_by_its_own_template() -> None:
    spec = Catalog.load({"mine": Override(encoding="my-vocabulary")}).resolve("mine")
    assert (spec.encoding, spec.layout, spec.template) == ("my-vocabulary", "jinja", "my-vocabulary")


def test_override_matches_a_glob() -> None:
    catalog = Catalog.load({"team-*": Override(like="qwen3")})
    assert catalog.resolve("team-a").encoding == "qwen3"
    with pytest.raises(UnknownModel):
        catalog.resolve("teamb")


@pytest.mark.parametrize(
    "override", [Override(), Override(like="no-such-model"), Override(encoding="qwen3", layout="no-such-layout")]
)
def test_load_refuses_when_an_override_is_wrong(override: Override) -> None:
    with pytest.raises(CatalogError, match="mine"):
        Catalog.load({"mine": override})


def test_every_encoding_is_a_model_name_for_texts() -> None:
    for encoding in load_encodings().encodings:
        spec = CATALOG.resolve(encoding)
        if spec.accuracy is not Accuracy.ESTIMATE:  # those without a published file name their sibling
            assert spec.encoding == encoding
