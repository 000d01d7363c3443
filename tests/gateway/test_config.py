from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import ConfigError, config_path, load_settings
from gateway.config.quantities import parse_amount, parse_duration, parse_fraction, parse_size
from gateway.config.schema import ConfigFile, json_schema
from gateway.settings import Settings
from policies.model import Limit

BAD_CONFIGS = Path(__file__).parent.parent / "data" / "bad_configs"
DIGEST = "sha256:" + "ab" * 32
ECHO = 'upstreams: [{name: echo, url: "echo:"}]\n'

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str, *, env: dict[str, str] | None = None, **overrides: object) -> Settings:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path, env=env or {}, overrides=overrides)

    return load_text


def problems_of(load: Load, text: str, **kwargs: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **kwargs)
    return [f"{problem.place.rpartition('/')[2]}: {problem.what}" for problem in caught.value.problems]


@pytest.mark.parametrize("path", sorted(BAD_CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_mistake_is_named_with_line_and_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD_CONFIGS)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path(path.name), env={})
    assert str(caught.value).splitlines() == path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()


def test_there_are_enough_bad_configs_and_one_with_ten_mistakes() -> None:
    assert len(list(BAD_CONFIGS.glob("*.yaml"))) >= 31
    for many in ("ten_mistakes", "ten_mistakes_some_not_yaml"):
        assert len((BAD_CONFIGS / f"{many}.expected").read_text(encoding="utf-8").splitlines()) == 10


def test_what_is_offered_instead_is_right_where_it_is_put(load: Load) -> None:
    tried = 0
    for path in BAD_CONFIGS.glob("*.expected"):
        told = path.read_text(encoding="utf-8").splitlines()
        found = re.search(r"^[^`]*`(?:\w+: )?([^`]+)`.*; did you mean `([^`]+)`\?$", told[0])
        if len(told) == 1 and found:
            text = path.with_suffix(".yaml").read_text(encoding="utf-8-sig")
            assert load(text.replace(found[1], found[2], 1)), path.stem
            tried += 1
    assert tried > 15


def test_mistakes_in_other_sections_are_found_beside_one_that_is_not_yaml(load: Load) -> None:
    text = "server: {port: 1\nstore: {url: mysql}\nbudgets: [{name: a, match: {modle: x}, models: {deny: b}}]\n"
    assert problems_of(load, text) == [
        "config.yaml:1:9: the `{` in `server: {port: 1` is not closed where line 2 begins another field",
        "config.yaml:2:1: the file has no `upstreams`",
        "config.yaml:2:14: `url: mysql` is not a store",
    ]


def test_a_line_that_is_not_yaml_shows_no_key(load: Load) -> None:
    for line in ("api_key: hunter2", "upstream_key: hunter2", "digest: hunter2", "x: sk-hunter2", "secret: a hunter2"):
        text = f"upstreams:\n  - name: a\n    url: https://a\n     {line}\n"
        assert "hunter2" not in str(problems_of(load, text))
        text = f"upstreams:\n  - name: a\n    url: https://a\n    {line.replace(': ', ':')}\n    models: b\n"
        assert "hunter2" not in str(problems_of(load, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file; write one or name another"):
        load_settings(tmp_path / "nowhere.yaml", env={})


def test_directory_is_refused_as_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path, env={})


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[[]," * 100_000, "- " * 50_000, "".join(" " * depth + "a:\n" for depth in range(2000))],
    ids=["brackets", "half-closed", "dashes", "indentation"],
)
def test_nesting_bomb_is_refused(load: Load, text: str) -> None:
    assert problems_of(load, text) == ["config.yaml:1:1: it is nested too deeply to be read"]


def test_control_characters_are_refused(load: Load) -> None:
    assert "config.yaml:1:1: " in problems_of(load, "time_zone: 'a\x07'\n" + ECHO)[0]


def test_smallest_file_gets_every_default(load: Load) -> None:
    settings = load(ECHO)
    assert settings.server.port == 8000
    assert settings.server.host == "0.0.0.0"
    assert settings.store.url == "sqlite:///tollgate.db"
    assert settings.tokenizers.dir == Path("models")
    assert settings.policy.output_hold == "learned"
    assert settings.policy.keys == ()
    assert settings.upstreams[0].models == ("*",)
    assert settings.admin.digest is None


def test_defaults_of_file_and_settings_are_the_same(load: Load) -> None:
    from gateway import settings as types

    settings = load(ECHO)
    assert settings.server == types.ServerSettings()
    assert settings.store == types.StoreSettings()
    assert settings.tokenizers == types.TokenizerSettings(models=settings.tokenizers.models)
    ours, theirs = settings.upstreams[0], types.UpstreamSettings(name="echo", url="echo:")
    for name in ("connect_timeout_s", "timeout_s", "idle_timeout_s", "models", "formats", "prefix", "platform"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_every_field_reaches_the_settings(load: Load) -> None:
    settings = load(
        f"""
        server: {{host: 127.0.0.1, port: 9000, workers: auto, max_body: 1MiB, unmatched: refuse, on_disconnect: drain,
                  trusted_proxies: [10.0.0.0/8], tls: {{cert: a.crt, key: a.key}}, shutdown_timeout: 5s,
                  log_level: debug, log_format: json}}
        store: {{url: "redis://localhost/1", on_error: divide, replicas: 3, hold_timeout: 1h, retention: 7d}}
        tokenizers: {{dir: /m, preload: [qwen3], unknown_model: estimate,
                      models: {{mine: {{encoding: qwen3, layout: jinja, max_output_tokens: 4k}},
                               other: {{like: gpt-4o}}}}}}
        upstreams:
          - {{name: azure, url: "https://x.example/base/", api_key: up-secret, models: "gpt-*", formats: [openai_chat],
              prefix: /azure/, deployments: {{prod: gpt-4o}}, platform: azure, connect_timeout: 1s, timeout: 2m,
              idle_timeout: 30s, headers: {{X-A: b}}, overheads: {{"gpt-*": 5, "o*": {{text: 1, tools: 2}}}}}}
        keys:
          - {{id: alice, digest: "{DIGEST.upper().replace("SHA256", "sha256")}", tags: {{team: search}}, disabled: true,
              expires: 2027-01-01, upstream_key: alices}}
        budgets:
          - name: all
            match: {{key: [alice, "b*"], model: gpt-4*, upstream: azure, team: search, env: [prod, test]}}
            each: team
            limits:
              - {{tokens: 100k, per: minute}}
              - {{input_tokens: 2.5M, per: week}}
              - {{output_tokens: 1_000, per: total}}
              - {{requests: 60, per: hour, sliding: true}}
              - {{concurrent: 5}}
            mode: shadow
            max_input_tokens: 32k
            max_output_tokens: 4k
            output_hold: 500
            models: {{allow: "gpt-*", deny: ["*-preview"]}}
            warn_at: [90%, 0.8, 80%]
            weights: {{input: 1, output: 4, cached: 0.1, reasoning: 2, models: {{"gpt-4*": 10}}}}
        output_hold: clamp
        output_hold_floor: 2k
        clamp_most: 8k
        admin: {{digest: "{DIGEST}"}}
        time_zone: Europe/Berlin
        """
    )
    server, store, tokenizers, policy = settings.server, settings.store, settings.tokenizers, settings.policy
    assert (server.host, server.port, server.workers, server.max_body_bytes) == ("127.0.0.1", 9000, 0, 2**20)
    assert (server.unmatched, server.on_disconnect, server.trusted_proxies) == ("refuse", "drain", ("10.0.0.0/8",))
    assert server.tls is not None
    assert (server.tls.cert, server.tls.key) == (Path("a.crt"), Path("a.key"))
    assert (server.shutdown_timeout_s, server.log_level, server.log_format) == (5.0, "DEBUG", "json")
    assert (store.url, store.on_error, store.replicas) == ("redis://localhost/1", "divide", 3)
    assert (store.hold_timeout_s, store.retention_days) == (3600.0, 7.0)
    assert (tokenizers.dir, tokenizers.preload, tokenizers.unknown_model) == (Path("/m"), ("qwen3",), "estimate")
    assert tokenizers.models["mine"].max_output_tokens == 4000
    assert tokenizers.models["other"].like == "gpt-4o"
    upstream = settings.upstreams[0]
    assert (upstream.url, upstream.prefix, upstream.api_key) == ("https://x.example/base", "/azure", "up-secret")
    assert (upstream.connect_timeout_s, upstream.timeout_s, upstream.idle_timeout_s) == (1.0, 120.0, 30.0)
    assert upstream.overheads == {"gpt-*": 5, "o*": {"text": 1, "tools": 2}}
    assert (upstream.deployments, upstream.headers) == ({"prod": "gpt-4o"}, {"X-A": "b"})
    key = policy.keys[0]
    assert (key.digest, key.disabled, key.upstream_key) == (DIGEST, True, "alices")
    assert key.expires == datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp(), "midnight in the policy's time zone"
    budget = policy.budgets[0]
    assert budget.match.key == ("alice", "b*")
    assert budget.match.tags == {"team": ("search",), "env": ("prod", "test")}
    assert budget.limits == (
        Limit("tokens", 100_000, "minute"),
        Limit("input_tokens", 2_500_000, "week"),
        Limit("output_tokens", 1000, "total"),
        Limit("requests", 60, "hour", sliding=True),
        Limit("concurrent", 5, "total"),
    )
    assert (budget.mode, budget.max_input_tokens, budget.max_output_tokens) == ("shadow", 32_000, 4000)
    assert (budget.output_hold, budget.allow_models, budget.deny_models) == (500, ("gpt-*",), ("*-preview",))
    assert budget.warn_at == (0.8, 0.9)
    assert budget.weights.models == (("gpt-4*", 10.0),)
    assert (budget.weights.output, budget.weights.cached, budget.weights.reasoning) == (4.0, 0.1, 2.0)
    assert (policy.output_hold, policy.output_hold_floor, policy.time_zone) == ("clamp", 2000, "Europe/Berlin")
    assert policy.clamp_most == 8000
    assert settings.admin.digest == DIGEST


def test_environment_wins_over_file_and_command_line_over_both(load: Load) -> None:
    text = ECHO + "server: {port: 1, host: 1.1.1.1}\nstore: {url: 'memory:'}\n"
    env = {
        "PORT": "2",
        "HOST": "2.2.2.2",
        "LOG_LEVEL": "error",
        "MODELS_DIR": "/env",
        "TOLLGATE_STORE": "sqlite:///e.db",
    }
    settings = load(text, env=env, port="3", workers=None)
    assert (settings.server.port, settings.server.host, settings.server.log_level) == (3, "2.2.2.2", "ERROR")
    assert settings.tokenizers.dir == Path("/env")
    assert settings.store.url == "sqlite:///e.db"


def test_empty_environment_variable_counts_as_unset(load: Load) -> None:
    assert load(ECHO, env={"PORT": ""}).server.port == 8000


def test_bad_override_names_its_origin(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ECHO, env={"PORT": "http", "TOLLGATE_WORKERS": "many"}, port=None, store="mysql:")
    assert [problem.place for problem in caught.value.problems] == [
        "environment PORT",
        "environment TOLLGATE_WORKERS",
        "--store",
    ]


def test_unknown_override_is_refused(load: Load) -> None:
    assert problems_of(load, ECHO, prot=1) == ["--prot: there is no such option"]


def test_config_path_prefers_what_is_given() -> None:
    assert config_path("a.yaml", env={"TOLLGATE_CONFIG": "b.yaml"}) == Path("a.yaml")
    assert config_path(None, env={"TOLLGATE_CONFIG": "b.yaml"}) == Path("b.yaml")
    assert config_path(None, env={}) == Path("config.yaml")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${A}", "value"),
        ("${MISSING:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("x-${A}-${MISSING:-y}", "x-value-y"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("${B}", "{injected: [yaml"),
    ],
)
def test_variables_are_expanded_inside_text(load: Load, written: str, expected: str) -> None:
    text = f'upstreams: [{{name: echo, url: "echo:", headers: {{X: "{written}"}}}}]'
    env = {"A": "value", "EMPTY": "", "B": "{injected: [yaml"}
    assert load(text, env=env).upstreams[0].headers["X"] == expected


def test_variable_can_hold_a_number(load: Load) -> None:
    assert load(ECHO + "server:\n  port: ${P}\n", env={"P": "9000"}).server.port == 9000


def test_empty_variable_for_a_key_is_refused_not_ignored(load: Load) -> None:
    text = (
        "upstreams:\n  - {name: a, url: https://a, api_key: '${K}'}\n  - name: b\n    url: 'echo:'\n    api_key: ${K}"
    )
    assert problems_of(load, text, env={"K": ""}) == [
        "config.yaml:2:40: `api_key` is empty",
        "config.yaml:5:14: `api_key` is empty",
    ]


def test_values_of_variables_and_keys_are_never_shown(load: Load) -> None:
    text = (
        "upstreams: [{name: '${SECRET}', url: 'https://u:hunter2@x y', api_key: [hunter2]}]\n"
        "keys: [{id: a, digest: hunter2, upstream_key: {x: hunter2}}]\n"
        "store: {url: 'mysql://u:hunter2@h/d'}\n"
    )
    assert "hunter2" not in "\n".join(problems_of(load, text, env={"SECRET": "hunter2 "}))


def test_words_that_yaml_1_1_bends_stay_words(load: Load) -> None:
    text = ECHO + f'keys: [{{id: a, digest: "{DIGEST}", tags: {{on: no, country: NO, time: "12:30", version: "1.0"}}}}]'
    assert load(text).policy.keys[0].tags == {"on": "no", "country": "NO", "time": "12:30", "version": "1.0"}


def test_anchors_and_merges_work(load: Load) -> None:
    text = """
    x-defaults: &defaults {timeout: 5s, models: "a-*"}
    upstreams:
      - {<<: *defaults, name: one, url: "echo:"}
      - {<<: *defaults, name: two, url: "echo:", models: "b-*"}
    """
    one, two = load(text).upstreams
    assert (one.timeout_s, one.models, two.timeout_s, two.models) == (5.0, ("a-*",), 5.0, ("b-*",))


def test_section_with_everything_commented_out_is_empty(load: Load) -> None:
    assert load(ECHO + "server:\n  # port: 1\nkeys:\n").server.port == 8000


def test_unknown_tag_on_a_value_is_refused(load: Load) -> None:
    assert "means nothing here" in problems_of(load, ECHO + "time_zone: !secret UTC")[0]


def test_limits_that_policies_refuse_are_all_refused_here_too(load: Load) -> None:
    text = ECHO + "budgets: [{name: a, limits: [{tokens: 2P, per: day}]}]"
    assert problems_of(load, text) == ["config.yaml:2:39: `tokens: 2P` is not an amount"]
    text = ECHO + "budgets: [{name: a, limits: [{tokens: 2000T, per: day}]}]"
    assert problems_of(load, text) == ["config.yaml:2:39: `tokens: 2000T` is larger than can be counted exactly"]
    text = ECHO + "budgets: [{name: a, limits: [{tokens: 1, per: day}], weights: {output: inf}}]"
    assert problems_of(load, text) == ["config.yaml:2:72: `output: inf` is not a finite number"]


def test_schema_describes_every_field() -> None:
    schema = json_schema()

    def fields(node: object, trail: str) -> list[str]:
        assert isinstance(node, dict)
        return [f"{trail}.{name}" for name, field in node.get("properties", {}).items() if not field.get("description")]

    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    silent = [each for name, node in {"": schema, **definitions}.items() for each in fields(node, name)]
    assert not silent


def test_every_example_in_the_schema_is_yaml() -> None:
    for name, field in ConfigFile.model_fields.items():
        assert field.examples, name
        yaml.safe_load(f"{name}: {field.examples[0]}")


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_amount, "100k", 100_000),
        (parse_amount, "2.5M", 2_500_000),
        (parse_amount, "1B", 10**9),
        (parse_amount, 7, 7),
        (parse_amount, "1_000", 1000),
        (parse_duration, "30s", 30.0),
        (parse_duration, "1h30m", 5400.0),
        (parse_duration, "500ms", 0.5),
        (parse_duration, "7d", 604_800.0),
        (parse_size, "32MiB", 32 * 2**20),
        (parse_size, "1.5KB", 1500),
        (parse_size, "512B", 512),
        (parse_fraction, "80%", 0.8),
        (parse_fraction, 0.8, 0.8),
    ],
)
def test_quantity_is_read(parse: Callable[[object], object], text: object, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text", "why"),
    [
        (parse_amount, "-5", "is not an amount"),
        (parse_amount, "1.5", "is not a whole number"),
        (parse_amount, "99999T", "is larger than can be counted exactly"),
        (parse_amount, True, "is not an amount"),
        (parse_duration, 30, "has no unit"),
        (parse_duration, "30 parsecs", "is not a duration"),
        (parse_size, "32", "has no unit"),
        (parse_size, "32 MT", "is not a size"),
        (parse_fraction, "120%", "is not above 0%"),
        (parse_fraction, "most", "is not a percentage"),
        (parse_fraction, "nan", "is not above 0%"),
    ],
)
def test_quantity_is_refused(parse: Callable[[object], object], text: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_amount_reads_back_what_was_written(amount: int) -> None:
    assert parse_amount(str(amount)) == parse_amount(f"{amount:_}") == amount


@given(st.text(max_size=40))
def test_quantities_only_ever_refuse_with_value_error(text: str) -> None:
    for parse in (parse_amount, parse_duration, parse_size, parse_fraction):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@given(st.text(max_size=200))
def test_any_text_as_file_is_settings_or_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigError):
        load_settings(path, env={})
