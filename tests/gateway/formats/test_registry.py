import pytest

from gateway.formats import FORMATS, match


@pytest.mark.parametrize(
    ("path", "name", "groups"),
    [
        ("/v1/chat/completions", "openai_chat", {}),
        ("/openrouter/api/v1/chat/completions", "openai_chat", {}),
        ("/openai/deployments/d/chat/completions", "openai_chat", {"model": "d"}),
        ("/v1/completions", "openai_completions", {}),
        ("/v1/embeddings", "openai_embeddings", {}),
        ("/v1/responses", "openai_responses", {}),
        ("/v1/responses/input_tokens", "openai_responses", {}),
        ("/v1/messages", "anthropic_messages", {}),
        ("/v1beta/models/g:generateContent", "gemini", {"model": "g"}),
    ],
)
def test_match_finds_the_format_by_the_end_of_the_path(path: str, name: str, groups: dict[str, str]) -> None:
    found = match("POST", path)
    assert found is not None
    assert (found[0].name, found[2]) == (name, groups)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/v1/chat/completions/x"), ("POST", "/v1/xcompletions"), ("POST", "/")],
)
def test_match_knows_no_other_paths(method: str, path: str) -> None:
    assert match(method, path) is None


def test_every_format_has_a_name_of_its_own() -> None:
    assert len({fmt.name for fmt in FORMATS}) == len(FORMATS)
