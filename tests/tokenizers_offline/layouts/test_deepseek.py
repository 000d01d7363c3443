from tests.tokenizers_offline.layouts.conversations import WEATHER, answer, call, chat, said
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.deepseek import V3_2, V4, DeepSeekLayout
from tokenizers_offline.prompt import ChatPrompt, Dialect, OutputSchema, ThinkingPart, ToolChoice

LAYOUT = DeepSeekLayout(V4)
START, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def render(prompt: ChatPrompt, layout: DeepSeekLayout = LAYOUT, **options: object) -> Rendered:
    return layout.render(prompt, ModelSpec("m", "m", "deepseek-v4", "deepseek-v4", options=dict(options)))


def text(rendered: Rendered) -> str:
    return "".join(piece.text for piece in rendered.pieces)


def test_render_writes_turns_behind_their_markers() -> None:
    rendered = render(
        chat(said("system", "be brief"), said("user", "hi"), said("assistant", "yo"), said("user", "bye"))
    )
    expected = f"{START}be brief<｜User｜>hi<｜Assistant｜></think>yo{END}<｜User｜>bye<｜Assistant｜></think>"
    assert (text(rendered), rendered.tokens) == (expected, 0)


def test_render_opens_thinking_when_the_request_turns_it_on() -> None:
    assert text(render(chat(said("user", "hi")), thinking=True)).endswith("<think>")
    assert text(render(chat(said("user", "hi"), thinking={"type": "enabled"}))).endswith("<think>")
    assert text(render(chat(said("user", "hi"), thinking={"type": "disabled"}), thinking=True)).endswith("</think>")
    assert text(render(chat(said("user", "hi"), options={"reasoning_effort": "none"}), thinking=True)).endswith(
        "</think>"
    )


def test_render_drops_earlier_reasoning_unless_there_are_tools() -> None:
    talk = (said("user", "hi"), said("assistant", ThinkingPart("hmm"), "yo"), said("user", "bye"))
    assert "hmm" not in text(render(chat(*talk), thinking=True))
    assert "hmm</think>yo" in text(render(chat(*talk, tools=(WEATHER,)), thinking=True))


def test_render_writes_calls_as_dsml_and_results_into_user_text() -> None:
    prompt = chat(
        said("user", "?"),
        said("assistant", call(arguments='{"city": "Rome", "days": 2}'), call(arguments="odd", call_id="2")),
        answer("sunny"),
        answer("rain", call_id="2"),
        said("user", "so?"),
    )
    written = text(render(prompt))
    assert '<｜DSML｜parameter name="city" string="true">Rome</｜DSML｜parameter>' in written
    assert '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>' in written
    assert '<｜DSML｜parameter name="arguments" string="true">odd</｜DSML｜parameter>' in written
    assert (
        "<｜User｜><tool_result>sunny</tool_result>\n\n<tool_result>rain</tool_result>\n\nso?<｜Assistant｜>" in written
    )


def test_render_counts_the_instructions_around_tools() -> None:
    plain = render(chat(said("user", "hi")))
    with_tools = render(chat(said("user", "hi"), tools=(WEATHER,)))
    assert with_tools.tokens - plain.tokens == V4.tools_before_tokens + V4.tools_after_tokens
    assert '{"name": "weather"' in text(with_tools)
    forbidden = render(chat(said("user", "hi"), tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert forbidden.pieces == plain.pieces


def test_render_counts_a_response_format() -> None:
    rendered = render(chat(said("user", "hi"), output_schema=OutputSchema({"type": "object"})))
    assert rendered.tokens == V4.schema_tokens
    assert '{"type": "object"}' in text(rendered)


def test_render_counts_the_highest_effort_s_instructions() -> None:
    assert (
        render(chat(said("user", "hi"), options={"reasoning_effort": "max"}), thinking=True).tokens == V4.effort_tokens
    )
    assert render(chat(said("user", "hi"), dialect=Dialect.OPENAI_RESPONSES), thinking=True).tokens == V4.effort_tokens


def test_render_frames_results_in_version_3_2() -> None:
    prompt = chat(said("user", "?"), said("assistant", call()), answer("sunny"), answer("rain"))
    written = text(render(prompt, DeepSeekLayout(V3_2)))
    assert "<｜DSML｜function_calls>" in written
    assert written.endswith(
        "\n\n<function_results>\n<result>sunny</result>\n<result>rain</result>\n</function_results>\n\n</think>"
    )
