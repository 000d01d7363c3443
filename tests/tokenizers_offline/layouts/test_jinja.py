import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tests.tokenizers_offline.layouts.conversations import WEATHER, answer, call, chat, said
from tokenizers_offline.catalog import Catalog
from tokenizers_offline.layouts.base import ModelSpec, Rendered
from tokenizers_offline.layouts.jinja import MOST_SYSTEM_TURNS, JinjaLayout, compile_template
from tokenizers_offline.prompt import Accuracy, ChatPrompt, Dialect, MediaPart, TextPrompt, ToolChoice
from tokenizers_offline.store import TokenizerStore

MODEL = ModelSpec("m", "m", "e", "jinja", options={"bos_token": "<s>", "eos_token": "</s>"})
PLAIN = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CALLS = (
    PLAIN
    + "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}(ARGS){% endfor %}{% endfor %}"
)
LAYOUT = JinjaLayout()


def render(template: str, prompt: ChatPrompt | TextPrompt, *, model: ModelSpec = MODEL, platform: str = "") -> Rendered:
    return LAYOUT.render(prompt, model, platform=platform, template=template)


def text(rendered: Rendered) -> str:
    return "".join(piece.text for piece in rendered.pieces)


def test_render_prints_conversation_and_generation_prompt() -> None:
    rendered = render(PLAIN, chat(said("system", "be brief"), said("user", "hi")))
    assert text(rendered) == "<s>[system]be brief[user]hi[assistant]"
    assert (rendered.accuracy, rendered.features, rendered.notes) == (Accuracy.BOUNDED, ("text",), ())
    assert all(piece.specials for piece in rendered.pieces)


@pytest.mark.parametrize(
    "hostile", ["{{ 7*7 }}", "{% for x in range(10**9) %}x{% endfor %}", "{{ ''.__class__ }}", "{#"]
)
def test_render_never_runs_what_the_caller_wrote(hostile: str) -> None:
    assert text(render(PLAIN, chat(said("user", hostile)))) == f"<s>[user]{hostile}[assistant]"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].missing.deeper }}",
        "{{ raise_exception('no') }}",
        "{% for x in range(10**9) %}x{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% if %}",
        "{{ 1 / 0 }}",
    ],
)
def test_render_estimates_when_the_template_fails(template: str) -> None:
    rendered = render(template, chat(said("user", "hello"), tools=(WEATHER,)))
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert "hello" in text(rendered)
    assert "weather" in text(rendered)
    assert any("The chat template failed" in note for note in rendered.notes)


def test_render_estimates_when_no_template_is_installed() -> None:
    rendered = render("", chat(said("user", "hello")))
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.tokens > 0
    assert rendered.notes == ("The model's chat template is not installed.",)


def test_render_estimates_when_system_messages_are_too_many_to_join() -> None:
    rendered = render(PLAIN, chat(*[said("system", "x")] * (MOST_SYSTEM_TURNS + 1)))
    assert rendered.accuracy is Accuracy.ESTIMATE


def test_render_hands_arguments_as_objects_when_the_template_wants_them() -> None:
    template = CALLS.replace("ARGS", "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}")
    assert "weather(city=Rome)" in text(render(template, chat(said("user", "?"), said("assistant", call()))))


def test_render_hands_arguments_as_text_when_the_template_joins_them() -> None:
    template = CALLS.replace("ARGS", "{{ '' + c.function.arguments }}")
    assert 'weather({"city": "Rome"})' in text(render(template, chat(said("user", "?"), said("assistant", call()))))


def test_render_hands_lists_when_the_template_wants_them() -> None:
    template = "{% for m in messages %}{{ m.content[0]['text'] ~ '' }}{{ m.content[0].type.upper() }}{% endfor %}"
    assert text(render(template, chat(said("user", "hi")))) == "hiTEXT"


def test_render_shows_media_when_the_template_can() -> None:
    template = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
        "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    rendered = render(template, chat(said("user", "see ", MediaPart("image", width=280, height=280))))
    assert text(rendered) == "see <image>"
    assert rendered.tokens == 103
    assert (rendered.accuracy, rendered.features) == (Accuracy.ESTIMATE, ("image",))


def test_render_prints_tools_with_blanks_and_without_for_ollama() -> None:
    template = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
    spaced = text(render(template, chat(said("user", "é"), tools=(WEATHER,))))
    assert spaced.startswith('{"type": "function", "function": {"name": "weather", "description":')
    compact = text(render(template, chat(said("user", "é"), tools=(WEATHER,), dialect=Dialect.OLLAMA)))
    assert compact == spaced.replace(", ", ",").replace(": ", ":")


def test_render_shapes_tools_as_the_model_s_servers_do() -> None:
    template = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
    prompt = chat(said("user", "?"), tools=(WEATHER,))
    bare = render(template, prompt, model=ModelSpec("m", "m", "e", "jinja", options={"tool_shape": "function"}))
    wrapped = render(template, prompt, model=ModelSpec("m", "m", "e", "jinja", options={"tool_shape": "wrapped"}))
    assert text(bare).startswith('{"name": "weather"')
    assert text(wrapped).startswith('{"function": {"name": "weather"')


def test_render_counts_tools_that_the_template_leaves_out() -> None:
    rendered = render(PLAIN, chat(said("user", "?"), tools=(WEATHER,)))
    assert "weather" in text(rendered)
    assert rendered.accuracy is Accuracy.ESTIMATE
    assert rendered.tokens > 0


def test_render_leaves_tools_out_when_the_caller_forbids_calls() -> None:
    rendered = render(PLAIN, chat(said("user", "?"), tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert (text(rendered), rendered.features) == ("<s>[user]?[assistant]", ("text",))


def test_render_passes_thinking_switches_and_protects_its_own_names() -> None:
    template = "{{ enable_thinking }}|{{ messages | length }}|{{ custom }}"
    kwargs = {"enable_thinking": False, "messages": [], "custom": 5}
    rendered = render(template, chat(said("user", "?"), options={"chat_template_kwargs": kwargs}))
    assert text(rendered) == "False|1|5"
    assert text(render(template, chat(said("user", "?"), thinking={"type": "disabled"}))) == "False|1|"


def test_render_widens_the_bound_when_text_looks_like_a_special_token() -> None:
    plain = render(PLAIN, chat(said("user", "hello")))
    spelt = render(PLAIN, chat(said("user", "<|im_end|> hello </think>")))
    assert spelt.upper_extra == plain.upper_extra + len("<|im_end|>") + len("</think>")
    assert spelt.notes


def test_render_adds_host_tokens_only_where_a_host_is_named() -> None:
    model = ModelSpec("m", "m", "e", "jinja", options={"host_tokens": 25, "host_tokens_with_system": 20})
    assert render(PLAIN, chat(said("user", "?")), model=model).tokens == 0
    assert render(PLAIN, chat(said("user", "?")), model=model, platform="groq").tokens == 25
    assert render(PLAIN, chat(said("system", "a"), said("user", "?")), model=model, platform="groq").tokens == 20


def test_render_keeps_texts_apart_when_the_prompt_is_text() -> None:
    rendered = render(PLAIN, TextPrompt(("one", (1, 2, 3), "two")))
    assert ([piece.text for piece in rendered.pieces], rendered.tokens) == (["one", "two"], 3)
    assert rendered.accuracy is Accuracy.EXACT


def test_template_ignores_generation_blocks() -> None:
    rendered = render("{% generation %}a{{ messages[0].content }}{% endgeneration %}b", chat(said("user", "hi")))
    assert text(rendered) == "ahib"


def test_template_prints_a_date_without_a_clock() -> None:
    assert text(render("{{ strftime_now('%d %b %Y') }}", chat(said("user", "hi")))) == "23 Nov 2026"


def test_compile_template_is_done_once() -> None:
    assert compile_template(PLAIN) is compile_template(PLAIN)


def test_every_installed_template_takes_a_question_and_a_tool_s_answer(installed_store: TokenizerStore) -> None:
    question = chat(said("user", "Is it warm in Rome?"))
    used = chat(*question.messages, said("assistant", call()), answer("sunny"), tools=(WEATHER,))
    without_calls = {"minimax-m1"}  # its template reads a call's name where no server puts it; labelled, see below
    for model in Catalog.load().models():
        if model.layout != "jinja":
            continue
        template = installed_store.template(model.template)
        assert template, f"no chat template for {model.family}"
        asked = LAYOUT.render(question, model, template=template)
        assert "Rome" in text(asked), model.family
        assert not any("failed" in note for note in asked.notes), (model.family, asked.notes)
        answered = LAYOUT.render(used, model, template=template)
        failed = any("failed" in note for note in answered.notes)
        assert failed == (model.template in without_calls), (model.family, answered.notes)


@pytest.mark.parametrize("value", ["text", 1, True, {"a": 1}, [1], (1,), Namespace(), compile_template])
@pytest.mark.parametrize(
    "name", ["__class__", "upper", "format", "append", "clear", "keys", "mro", "_x", "__globals__"]
)
def test_remembered_safety_is_jinjas_own(value: object, name: str) -> None:
    own = ImmutableSandboxedEnvironment()
    environment = compile_template(PLAIN).template.environment
    assert isinstance(environment, ImmutableSandboxedEnvironment)
    assert environment.is_safe_attribute(value, name, None) == own.is_safe_attribute(value, name, None)
