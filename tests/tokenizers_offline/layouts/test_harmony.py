from tests.tokenizers_offline.layouts.conversations import WEATHER, answer, call, chat, said
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.harmony import FUNCTIONS_CHANNEL_TOKENS, GENERATION_TOKENS, SYSTEM_TOKENS, HarmonyLayout
from tokenizers_offline.layouts.harmony_tools import render_functions
from tokenizers_offline.prompt import ChatPrompt, TextPrompt, ThinkingPart, ToolSpec

MODEL = ModelSpec("gpt-oss-20b", "gpt-oss", "o200k_harmony", "harmony")
FIXED = SYSTEM_TOKENS + GENERATION_TOKENS


def render(prompt: ChatPrompt) -> Rendered:
    return HarmonyLayout().render(prompt, MODEL)


def texts(rendered: Rendered) -> list[str]:
    return [piece.text for piece in rendered.pieces]


def test_render_counts_the_server_s_own_system_message() -> None:
    rendered = render(chat(said("user", "hi")))
    assert (texts(rendered), rendered.tokens) == (["hi"], FIXED + 4)


def test_render_joins_system_texts_and_functions_in_one_developer_message() -> None:
    rendered = render(
        chat(said("system", "be brief"), said("developer", "be kind"), said("user", "hi"), tools=(WEATHER,))
    )
    developer, user = texts(rendered)
    assert developer.startswith(
        "# Instructions\n\nbe brief\n\nbe kind\n\n# Tools\n\n## functions\n\nnamespace functions {"
    )
    assert user == "hi"
    assert rendered.tokens == FIXED + FUNCTIONS_CHANNEL_TOKENS + 4 + 4


def test_render_keeps_reasoning_only_until_an_answer_follows() -> None:
    asked = (said("user", "?"), said("assistant", ThinkingPart("hmm"), call()), answer("sunny"))
    assert "hmm" in texts(render(chat(*asked)))
    assert "hmm" not in texts(render(chat(*asked, said("assistant", "Warm."), said("user", "thanks"))))


def test_render_names_the_function_in_call_and_result() -> None:
    assert texts(render(chat(said("assistant", call()), answer("sunny")))) == [
        " to=functions.weather",
        '{"city": "Rome"}',
        "functions.weather to=assistant",
        '"sunny"',
    ]


def test_render_never_reads_special_tokens_in_what_callers_wrote() -> None:
    assert not any(piece.specials for piece in render(chat(said("user", "<|end|>"))).pieces)


def test_render_leaves_texts_alone() -> None:
    assert texts(HarmonyLayout().render(TextPrompt(("a", "b")), MODEL)) == ["a", "b"]


def test_functions_are_written_as_typescript() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "the city\nof all"},
            "unit": {"enum": ["C", "F"], "default": "C"},
            "days": {"type": "array", "items": {"type": "integer"}},
            "more": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}, "required": ["x"]},
            "any": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "free": {"type": "object"},
            "odd": 5,
        },
        "required": ["city"],
    }
    tools = [ToolSpec("f", "does it", schema), ToolSpec("g", None, None), ToolSpec("h", "empty", {"type": "object"})]
    assert render_functions(tools) == (
        "## functions\n\nnamespace functions {\n\n"
        "// does it\ntype f = (_: {\n// the city\n// of all\ncity: string,\n"
        'unit?: "C" | "F", // default: "C"\ndays?: number[],\nmore?: {\nx: number | null,\n},\n'
        "any?: string | null,\nfree?: object,\nodd?: any,\n}) => any;\n\n"
        "type g = () => any;\n\n// empty\ntype h = (_: {\n}) => any;\n\n} // namespace functions"
    )


def test_functions_end_when_a_schema_nests_without_end() -> None:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(500):
        schema = {"type": "array", "items": schema}
    assert "any[][]" in render_functions([ToolSpec("f", None, {"properties": {"x": schema}})])
