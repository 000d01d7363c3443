"""config.yaml, field by field: what each means, what it may hold, what it is when left out.

These models exist only while a file is read; the running gateway sees `gateway.settings` and `policies.model`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.config.fields import (
    Amount,
    Digest,
    Duration,
    Fraction,
    Moment,
    Name,
    OutputHoldRule,
    Pattern,
    Patterns,
    Secret,
    StoreUrl,
    TimeZone,
    UpstreamUrl,
    mistake,
    option,
)
from gateway.config.listening import ServerSection
from gateway.config.telling import MetricsSection, WebhookSection
from policies.model import SLIDING_PERIODS, Period, Unit


class Section(BaseModel):
    """A mapping whose fields are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=False)


def _not_negative(value: float) -> float:
    if value < 0:
        raise mistake("is negative", "write a factor such as `0.5`")
    return value


Factor = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_not_negative)]


class StoreSection(Section):
    url: StoreUrl = option(
        "sqlite:///tollgate.db",
        "Where budgets are kept: SQLite for one machine, Redis or Valkey for several, `memory:` for trying out.",
        example="sqlite:///tollgate.db",
    )
    on_error: Literal["refuse", "allow", "divide"] = option(
        "refuse",
        "When the store is lost: refuse with 503, let everything pass, or enforce each limit / `replicas` locally.",
        example="refuse",
    )
    replicas: Annotated[int, Field(ge=1)] | None = option(
        None, "How many gateways share the store; needed by `on_error: divide`.", example="3"
    )
    hold_timeout: Duration = option(
        600.0, "After this an unfinished request's hold is settled as if it had been used up.", example="10m"
    )
    retention: Duration = option(30 * 86_400.0, "How long the ledger of finished requests is kept.", example="30d")


class ModelSection(Section):
    like: str | None = option(None, "Count as this catalogued model.", example="qwen3")
    encoding: str | None = option(None, "Tokenizer to count with; see `tollgate tokenizers list`.", example="qwen3")
    layout: str | None = option(None, "Chat layout to count with.", example="jinja")
    max_output_tokens: Amount | None = option(None, "The model's own output limit.", example="8k")

    @model_validator(mode="after")
    def _names_a_way_to_count(self) -> ModelSection:
        if self.like and (self.encoding or self.layout):
            raise mistake("names `like` and an encoding or layout", "keep `like`, or `encoding` and `layout`")
        if not self.like and not self.encoding:
            raise mistake("says no way to count", "write `like: qwen3`, or `encoding: qwen3` and `layout: jinja`")
        return self


class TokenizersSection(Section):
    dir: str = option("models", "Where `tollgate tokenizers fetch` stores tokenizers.", example="models")
    preload: tuple[str, ...] = option(
        (), "Encodings to load at start; the others load at first use.", example="[o200k_base, qwen3]"
    )
    unknown_model: Literal["refuse", "estimate"] = option(
        "refuse", "A model the catalog does not know: 404, or a labelled estimate.", example="refuse"
    )
    models: dict[str, ModelSection] = option(
        None, "Names of your own, and how to count them.", example="{my-model: {like: qwen3}}", factory=dict
    )


class UpstreamSection(Section):
    name: Name = option(..., "Its name in budgets, logs and metrics.", example="openai")
    url: UpstreamUrl = option(
        ..., "Base that a request's path is appended to; `echo:` is built in.", example="https://api.openai.com"
    )
    api_key: Secret | None = option(
        None, "Sent instead of the caller's key, which then never leaves.", example="${OPENAI_API_KEY}"
    )
    models: Patterns = option(
        ("*",), "Models it serves, as patterns; the first upstream that matches is taken.", example='["gpt-*", "o*"]'
    )
    formats: tuple[str, ...] = option(
        (), "APIs it speaks, by format name; empty is every one.", example="[openai_chat, openai_responses]"
    )
    prefix: str = option("", "Path prefix that selects this upstream; cut before forwarding.", example="/openai")
    deployments: dict[str, str] = option(
        None, "Azure deployment names and the models they serve.", example="{prod-chat: gpt-4o}", factory=dict
    )
    platform: str = option(
        "", "Who serves the model, where that changes the bill; otherwise told from the URL.", example="azure"
    )
    connect_timeout: Duration = option(10.0, "Time to connect.", example="10s")
    timeout: Duration = option(600.0, "Time for a whole answer.", example="10m")
    idle_timeout: Duration = option(300.0, "Time between two pieces of an answer.", example="5m")
    headers: dict[str, str] = option(
        None, "Headers added to every request.", example="{OpenAI-Organization: org-1}", factory=dict
    )
    overheads: dict[str, int | dict[str, int]] = option(
        None,
        "Tokens of hidden host prompts by model pattern; `tools:` beside `text:` where tools change them.",
        example='{"llama-3*": {text: 0, tools: 199}}',
        factory=dict,
    )


class KeySection(Section):
    id: Name = option(..., "Its name in budgets, logs and metrics.", example="alice")
    digest: Digest = option(
        ..., "`sha256:` and the key's digest; `tollgate keys digest` makes it.", example='"sha256:9f86d0..."'
    )
    tags: dict[str, str] = option(
        None, "What budgets can match and be kept by.", example="{team: search, env: prod}", factory=dict
    )
    expires: Moment | None = option(None, "From then on the key is refused.", example="2027-12-31")
    disabled: bool = option(False, "Refuse the key now.", example="true")
    upstream_key: Secret | None = option(
        None, "Sent upstream for this caller instead of the upstream's own key.", example="${ALICE_OPENAI_KEY}"
    )


UNITS: tuple[Unit, ...] = ("tokens", "input_tokens", "output_tokens", "requests", "concurrent")


class LimitSection(Section):
    tokens: Amount | None = option(None, "Input and output tokens together.", example="100k")
    input_tokens: Amount | None = option(None, "Input tokens.", example="80k")
    output_tokens: Amount | None = option(None, "Output tokens.", example="20k")
    requests: Amount | None = option(None, "Requests.", example="60")
    concurrent: Amount | None = option(None, "Requests at the same time; takes no `per`.", example="5")
    per: Period | None = option(None, "The window: calendar-aligned in `time_zone`.", example="minute")
    sliding: bool = option(False, "Look back one minute, hour, day or week from now instead.", example="true")

    @model_validator(mode="after")
    def _counts_one_thing(self) -> LimitSection:
        units = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(units) != 1:
            what = (
                "limits nothing" if not units else "counts " + " and ".join(f"`{unit}`" for unit in units) + " at once"
            )
            raise mistake(what, "write one of `tokens`, `input_tokens`, `output_tokens`, `requests`, `concurrent`")
        if units == ["concurrent"]:
            if self.per or self.sliding:
                raise mistake("gives `concurrent` a window", "write `{concurrent: 5}` alone")
        elif self.per is None:
            raise mistake(
                "names no window", f"write `{{{units[0]}: ..., per: minute}}` (or hour, day, week, month, year, total)"
            )
        elif self.sliding and self.per not in SLIDING_PERIODS:
            raise mistake(
                f"cannot slide over a {self.per}", "write one of `minute`, `hour`, `day`, `week`, or remove `sliding`"
            )
        return self


class MatchSection(BaseModel):
    """Reserved names and any tag."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Patterns] = Field(init=False)

    key: Patterns = option((), "Key ids.", example="alice")
    model: Patterns = option((), "Model names as callers write them.", example='"gpt-4*"')
    upstream: Patterns = option((), "Upstream names.", example="openai")

    @property
    def tags(self) -> dict[str, Patterns]:
        """Every other field: a tag and the values it may have."""
        return dict(self.__pydantic_extra__)


class ModelsSection(Section):
    allow: Patterns = option((), "Only these models.", example='["gpt-4o*"]')
    deny: Patterns = option((), "Never these models.", example='["*-preview"]')


class WeightsSection(Section):
    input: Factor = option(1.0, "One input token.", example="1")
    output: Factor = option(1.0, "One output token.", example="4")
    cached: Factor = option(1.0, "One cached input token.", example="0.1")
    reasoning: Factor = option(1.0, "One reasoning token.", example="4")
    models: dict[Pattern, Factor] = option(
        None,
        "A factor on all of them by model pattern; the first match counts.",
        example='{"gpt-4*": 10}',
        factory=dict,
    )


class BudgetSection(Section):
    name: Name = option(..., "Its name in counters, headers and refusals.", example="team-day")
    match: MatchSection = option(
        None,
        "Who it is for: `key`, `model`, `upstream` and any tag, each a pattern or a list; empty is everyone.",
        example="{team: search, model: gpt-4*}",
        factory=MatchSection,
    )
    each: str = option(
        "", "Who gets a counter of its own: `key` or a tag; empty is one counter for all.", example="key"
    )
    limits: tuple[LimitSection, ...] = option(
        (), "All of them are held before a request passes.", example="[{tokens: 100k, per: minute}]"
    )
    mode: Literal["enforce", "shadow"] = option(
        "enforce", "`shadow` counts and reports, and never refuses.", example="shadow"
    )
    max_input_tokens: Amount | None = option(None, "Largest prompt of one request.", example="32k")
    max_output_tokens: Amount | None = option(None, "Largest answer of one request.", example="4k")
    output_hold: OutputHoldRule | None = option(
        None, "What to hold for an answer without a cap; otherwise the file's `output_hold`.", example="clamp"
    )
    on_exhausted: Literal["finish", "cut"] | None = option(
        None, "What happens to a streamed answer this budget has nothing left for; else `server`'s.", example="cut"
    )
    models: ModelsSection = option(
        None, "Models its callers may and may not use.", example='{deny: ["*-preview"]}', factory=ModelsSection
    )
    warn_at: tuple[Fraction, ...] = option(
        (), "Shares of a limit that are told of when reached, once a window: log, metrics, webhook.", example="[80%]"
    )
    weights: WeightsSection = option(
        None, "What tokens cost, for budgets in cost units.", example="{output: 4, cached: 0.1}", factory=WeightsSection
    )

    @model_validator(mode="after")
    def _does_something(self) -> BudgetSection:
        caps = self.max_input_tokens is not None or self.max_output_tokens is not None
        if not self.limits and not caps and not self.models.allow and not self.models.deny:
            raise mistake("limits nothing", "add `limits: [{tokens: 100k, per: day}]`, a cap or `models`")
        return self


class AdminSection(Section):
    digest: Digest | None = option(
        None, "Digest of the key that opens /admin and /dashboard; without it both are closed.", example='"sha256:..."'
    )


class ConfigFile(Section):
    server: ServerSection = option(None, "How the gateway listens.", example="{port: 8000}", factory=ServerSection)
    store: StoreSection = option(
        None, "Where budgets are kept.", example="{url: redis://localhost}", factory=StoreSection
    )
    tokenizers: TokenizersSection = option(
        None, "What prompts are counted with.", example="{preload: [o200k_base]}", factory=TokenizersSection
    )
    upstreams: tuple[UpstreamSection, ...] = option(..., "Where requests go.", example='[{name: echo, url: "echo:"}]')
    keys: tuple[KeySection, ...] = option((), "Who may call.", example='[{id: alice, digest: "sha256:..."}]')
    budgets: tuple[BudgetSection, ...] = option(
        (), "What they may spend.", example="[{name: day, limits: [{tokens: 1M, per: day}]}]"
    )
    output_hold: OutputHoldRule = option(
        "learned", "What to hold for an answer whose caller names no cap.", example="learned"
    )
    output_hold_floor: Amount = option(1024, "What `learned` holds before there is history.", example="1024")
    clamp_most: Amount = option(
        32_768, "Largest cap that `clamp` writes for a model whose own limit is not known.", example="32768"
    )
    metrics: MetricsSection = option(
        None, "What metrics tell apart.", example="{most_keys: 50}", factory=MetricsSection
    )
    webhook: WebhookSection | None = option(
        None,
        "Who is told, once a window, of `warn_at` thresholds passed and of budgets that have nothing left.",
        example='{url: "https://ops.example.com/tollgate", secret: "${TOLLGATE_WEBHOOK_SECRET}"}',
    )
    admin: AdminSection = option(None, "Who may administer.", example='{digest: "sha256:..."}', factory=AdminSection)
    time_zone: TimeZone = option("UTC", "The zone that days, weeks, months and years begin in.", example="UTC")


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of config.yaml, for editors."""
    schema = ConfigFile.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Tollgate config.yaml"
    schema["patternProperties"] = {"^x-": {}}
    return schema
