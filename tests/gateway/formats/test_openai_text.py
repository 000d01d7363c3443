import orjson
import pytest

from gateway.errors import BadRequest
from gateway.formats import match
from gateway.formats.base import Call
from tokenizers_offline.prompt import TextPrompt


def parse(path: str, **body: object) -> Call:
    found = match("POST", path)
    assert found is not None
    fmt, route, groups = found
    return fmt.parse(route, groups, orjson.dumps({"model": "m", **body}))


@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["a", [1]], ("a", (1,))),
    ],
)
def test_items_are_read_in_every_shape(given: object, items: tuple[object, ...]) -> None:
    completion = parse("/v1/completions", prompt=given, n=2, best_of=3, max_tokens=5, suffix="z")
    assert completion.prompt == TextPrompt(items, purpose="completion", suffix="z")
    assert (completion.choices, completion.output_cap) == (3 * len(items), 5)
    embedding = parse("/v1/embeddings", input=given)
    assert embedding.prompt == TextPrompt(items, purpose="embedding")
    assert (embedding.kind, embedding.output_cap) == ("embed", 0)


@pytest.mark.parametrize("given", [5, [], [1.5], [{}], [[1, "x"]], [True], ["a", 1], [None]])
def test_items_of_other_types_are_refused(given: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse("/v1/embeddings", input=given)
    assert (caught.value.param or "").startswith("input")


def test_a_missing_embedding_input_is_refused_but_a_completion_starts_from_nothing() -> None:
    with pytest.raises(BadRequest):
        parse("/v1/embeddings")
    assert parse("/v1/completions").prompt == TextPrompt(((0,),), purpose="completion")


def test_paths_of_old_engines_and_azure_name_the_model() -> None:
    assert parse("/v1/engines/davinci/completions", prompt="x").model == "davinci"
    assert parse("/openai/deployments/emb/embeddings", input="x").model == "emb"
    assert parse("/openai/deployments/chat/completions", prompt="x").model == "chat"


def test_output_caps_are_lowered_where_there_is_output() -> None:
    found = match("POST", "/v1/completions")
    assert found is not None
    capped = found[0].with_output_cap(parse("/v1/completions", prompt="x", max_tokens=90), 7)
    assert orjson.loads(capped)["max_tokens"] == 7
    found = match("POST", "/v1/embeddings")
    assert found is not None
    call = parse("/v1/embeddings", input="x")
    assert orjson.loads(found[0].with_output_cap(call, 7)) == call.body
