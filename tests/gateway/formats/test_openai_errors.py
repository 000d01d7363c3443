import asyncio

import openai
import orjson
import pytest
from aiohttp import web

from gateway.errors import BudgetRefused, GatewayError, Unauthorized
from gateway.formats.openai_errors import render_openai_error


def test_a_refusal_says_which_budget_and_when_to_try_again() -> None:
    refused = BudgetRefused(
        "Budget 'team' is used up.", retry_after_s=1.2341, should_retry=True, details={"budget": "team", "available": 3}
    )
    status, headers, body = render_openai_error(refused)
    assert status == 429
    assert headers == {
        "Content-Type": "application/json",
        "Retry-After": "2",
        "retry-after-ms": "1235",
        "x-should-retry": "true",
    }
    assert orjson.loads(body)["error"] == {
        "budget": "team",
        "available": 3,
        "message": "Budget 'team' is used up.",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_details_never_replace_the_error_itself() -> None:
    _, _, body = render_openai_error(GatewayError("true", details={"message": "false", "code": "false"}))
    assert orjson.loads(body)["error"]["message"] == "true"
    assert orjson.loads(body)["error"]["code"] is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BudgetRefused("no", code="insufficient_quota", should_retry=False), openai.RateLimitError),
        (BudgetRefused("no", status=413, code="request_exceeds_budget", should_retry=False), openai.APIStatusError),
        (Unauthorized("no"), openai.AuthenticationError),
    ],
)
async def test_the_sdk_raises_its_own_error_without_trying_again(
    aiohttp_server, error: GatewayError, expected: type[openai.APIStatusError]
) -> None:
    asked = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.path)
        status, headers, body = render_openai_error(error)
        return web.Response(status=status, headers=headers, body=body)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", refuse)
    server = await aiohttp_server(app)
    url = str(server.make_url("/v1"))

    def ask() -> None:
        with openai.OpenAI(api_key="x", base_url=url) as client:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])

    with pytest.raises(expected) as caught:
        await asyncio.to_thread(ask)
    assert caught.value.code == error.code
    assert caught.value.status_code == error.status
    assert len(asked) == 1
