from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import ModelNotFound, NotFound
from gateway.forwarded_headers import answer_headers
from gateway.settings import UpstreamSettings
from gateway.upstream import Outgoing, Upstream, Upstreams, platform_of


class NoClient:
    async def send(self, outgoing: Outgoing) -> Any:
        raise AssertionError("nothing is sent here")


def upstream(**settings: Any) -> Upstream:
    return Upstream(UpstreamSettings(**{"name": "u", "url": "https://api.example.com", **settings}), NoClient())


def raw(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


def shown(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in headers]


def prepare(target: Upstream, raw_target: str = "/v1/x", **changes: Any) -> Any:
    """The request as it would be sent, its headers in words."""
    options: dict[str, Any] = {
        "headers": [("Authorization", "Bearer sk-caller"), ("X-App", "1")],
        "body": b"{}",
        "key": None,
        "format_name": "openai_chat",
        "plain": False,
    }
    options.update(changes)
    headers, body = options.pop("headers"), options.pop("body")
    outgoing = target.prepare("POST", raw_target, raw(headers), body, **options)
    return outgoing._replace(headers=shown(outgoing.headers))  # type: ignore[arg-type]


def test_the_first_upstream_that_serves_a_model_is_chosen() -> None:
    upstreams = Upstreams([upstream(name="a", models=("gpt-*",)), upstream(name="b", models=("claude-*", "gpt-5"))])
    assert upstreams.choose("/v1/x", format_name="openai_chat", model="gpt-5").name == "a"
    assert upstreams.choose("/v1/x", format_name="openai_chat", model="claude-3").name == "b"
    with pytest.raises(ModelNotFound, match=r"No upstream serves the model 'grok'.*a, b"):
        upstreams.choose("/v1/x", format_name="openai_chat", model="grok")


def test_an_upstream_is_chosen_by_format() -> None:
    upstreams = Upstreams([upstream(name="a", formats=("anthropic_messages",)), upstream(name="b")])
    assert upstreams.choose("/v1/x", format_name="openai_chat", model="m").name == "b"
    assert upstreams.choose("/v1/x", format_name="anthropic_messages", model="m").name == "a"


def test_a_prefix_selects_and_is_needed() -> None:
    upstreams = Upstreams([upstream(name="groq", prefix="/groq"), upstream(name="rest", models=("gpt-*",))])
    assert upstreams.choose("/groq/v1/x", format_name="openai_chat", model="gpt-4").name == "groq"
    assert upstreams.choose("/v1/x", format_name="openai_chat", model="gpt-4").name == "rest"
    with pytest.raises(ModelNotFound):
        upstreams.choose("/groqish/v1/x", format_name="openai_chat", model="llama")


def test_no_upstream_is_a_404_for_a_path_without_model() -> None:
    with pytest.raises(NotFound):
        Upstreams([]).choose("/v1/x", format_name=None, model=None)


def test_a_deployment_names_its_model() -> None:
    azure = upstream(deployments={"prod": "gpt-4o"}, models=("gpt-*",))
    assert azure.serves(format_name="openai_chat", model="prod")
    assert azure.model_of("prod") == "gpt-4o"
    assert azure.model_of("gpt-4") == "gpt-4"


@pytest.mark.parametrize(
    ("url", "prefix", "raw", "sent"),
    [
        ("https://h", "", "/v1/x?a=1%20b", "/v1/x?a=1%20b"),
        ("https://h/api/v1", "", "/v1/x", "/x"),
        ("https://h/api/v1/", "", "/v1/x", "/x"),
        ("https://h/api", "", "/v1/x", "/v1/x"),
        ("https://h/v1", "/groq", "/groq/v1/x", "/x"),
        ("https://h/v1", "", "/v1beta/x", "/v1beta/x"),
    ],
)
def test_the_path_goes_on_below_the_base(url: str, prefix: str, raw: str, sent: str) -> None:
    assert prepare(upstream(url=url, prefix=prefix), raw).target == sent


@pytest.mark.parametrize(
    ("format_name", "platform", "name"),
    [
        ("openai_chat", "", "Authorization"),
        ("anthropic_messages", "", "x-api-key"),
        ("anthropic_messages", "openrouter", "Authorization"),
        ("gemini", "", "x-goog-api-key"),
        ("openai_chat", "azure", "api-key"),
    ],
)
def test_the_upstreams_key_replaces_the_callers(format_name: str, platform: str, name: str) -> None:
    headers = [
        ("Authorization", "Bearer sk-caller"),
        ("X-Api-Key", "sk-caller"),
        ("api-key", "sk-caller"),
        ("x-goog-api-key", "sk-caller"),
    ]
    outgoing = prepare(
        upstream(api_key="sk-own", platform=platform),
        "/v1/x?key=sk-caller&alt=sse",
        headers=headers,
        format_name=format_name,
    )
    assert outgoing.target == "/v1/x?alt=sse"
    assert "sk-caller" not in repr(outgoing)
    assert dict(outgoing.headers)[name].endswith("sk-own")


def test_the_keys_own_upstream_key_wins() -> None:
    assert dict(prepare(upstream(api_key="sk-own"), key="sk-hers").headers)["Authorization"] == "Bearer sk-hers"


def test_the_callers_credential_travels_on_when_there_is_no_other() -> None:
    assert dict(prepare(upstream(), "/v1/x?key=k").headers)["Authorization"] == "Bearer sk-caller"
    assert prepare(upstream(), "/v1/x?key=k").target == "/v1/x?key=k"


def test_on_an_unknown_path_the_key_goes_where_the_caller_put_its_own() -> None:
    outgoing = prepare(upstream(api_key="sk-own"), headers=[("x-api-key", "sk-caller")], format_name=None)
    assert ("x-api-key", "sk-own") in outgoing.headers


def test_hop_by_hop_headers_stay_behind() -> None:
    headers = [
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("TE", "trailers"),
        ("Host", "gateway"),
        ("Content-Length", "2"),
        ("Content-Encoding", "gzip"),
        ("Expect", "100-continue"),
        ("Accept-Encoding", "gzip, compress"),
        ("X-End", "1"),
    ]
    assert prepare(upstream(), headers=headers).headers == [("X-End", "1"), ("Accept-Encoding", "gzip")]
    assert prepare(upstream(), headers=headers, plain=True).headers[-1] == ("Accept-Encoding", "identity")


def test_configured_headers_win_over_the_callers() -> None:
    outgoing = prepare(upstream(headers={"x-app": "ours"}))
    assert [value for name, value in outgoing.headers if name.lower() == "x-app"] == ["ours"]


def test_the_upstreams_own_limits_are_renamed() -> None:
    headers = [
        ("X-RateLimit-Remaining-Tokens", "7"),
        ("anthropic-ratelimit-tokens-limit", "8"),
        ("RateLimit", "x"),
        ("x-tollgate-request-id", "forged"),
        ("Connection", "close"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Content-Length", "3"),
    ]
    assert shown(answer_headers(raw(headers), drop_length=True)) == [
        ("x-upstream-x-ratelimit-remaining-tokens", "7"),
        ("x-upstream-anthropic-ratelimit-tokens-limit", "8"),
        ("x-upstream-ratelimit", "x"),
        ("x-upstream-x-tollgate-request-id", "forged"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]


def test_overheads_are_chosen_by_model_and_tools() -> None:
    groq = upstream(overheads={"llama-3*": {"text": 1, "tools": 199}, "*": 5})
    assert groq.overhead("llama-3.1-8b", with_tools=True) == 199
    assert groq.overhead("llama-3.1-8b", with_tools=False) == 1
    assert groq.overhead("qwen", with_tools=True) == 5


@pytest.mark.parametrize(
    ("url", "platform"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://my.openai.azure.com", "azure"),
        ("https://europe-west1-aiplatform.googleapis.com/v1", "vertex"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("https://notapi.openai.com.evil.example", ""),
        ("echo:", ""),
        ("http://127.0.0.1:9", ""),
    ],
)
def test_the_platform_is_read_off_the_host(url: str, platform: str) -> None:
    assert platform_of(url) == platform
