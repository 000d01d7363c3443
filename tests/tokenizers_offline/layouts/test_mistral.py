from tests.tokenizers_offline.layouts.conversations import WEATHER, answer, call, chat, said
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.mistral import NAMED_TOOL_TOKENS, MistralLayout
from tokenizers_offline.prompt import ChatPrompt, ToolChoice

TALK = chat(said("system", "be brief"), said("user", "hi"), said("assistant", "yo"), said("user", "bye"))


def render(prompt: ChatPrompt, name: str = "mistral-large-latest") -> Rendered:
    return MistralLayout().render(prompt, ModelSpec(name, "m", "mistral-nemo", "m", options={"bare_name": name}))


def texts(rendered: Rendered) -> list[str]:
    return [piece.text for piece in rendered.pieces]


def test_render_gives_the_system_text_its_own_tokens() -> None:
    rendered = render(TALK)
    # <s> [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [INST] [/INST] </s> [INST] [/INST]
    assert (texts(rendered), rendered.tokens) == (["be brief", "hi", "yo", "bye"], 8)


def test_render_puts_the_system_text_into_the_last_question_of_older_models() -> None:
    rendered = render(TALK, "open-mistral-nemo")
    assert (texts(rendered), rendered.tokens) == (["hi", "yo", "be brief\n\nbye"], 6)


def test_render_lists_tools_as_json_and_counts_a_named_one() -> None:
    free = render(chat(said("user", "hi"), tools=(WEATHER,)))
    named = render(chat(said("user", "hi"), tools=(WEATHER,), tool_choice=ToolChoice("named", "weather")))
    assert texts(free)[0].startswith('[{"type": "function", "function": {"name": "weather", "description":')
    assert named.tokens == free.tokens + NAMED_TOOL_TOKENS
    assert named.features == ("tools", "named_tool")


def test_render_counts_calls_and_results() -> None:
    rendered = render(chat(said("user", "?"), said("assistant", call()), answer("sunny")))
    # <s> [INST] [/INST] [TOOL_CALLS] [ARGS] </s> [TOOL_RESULTS] [/TOOL_RESULTS]
    assert (texts(rendered), rendered.tokens) == (["?", "weather", '{"city": "Rome"}', "sunny"], 8)
