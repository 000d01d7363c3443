"""What the direct endpoints answer, as models: they are written into the description and hold the tests to it.

Answers may gain fields; callers are to ignore those they do not know.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Accuracy = Literal["exact", "bounded", "estimate"]
Unit = Literal["tokens", "input_tokens", "output_tokens", "requests", "concurrent"]
Per = Literal["minute", "hour", "day", "week", "month", "year", "total"]


class Error(BaseModel):
    """What went wrong, and what to do next. Budgets' refusals bring the fields from `budget` on."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None = Field(description="The field that is wrong.")
    code: str | None = Field(description="A word for programs.")
    budget: str = Field("", description="The budget that refuses.")
    scope: str = Field("", description="Whose counter it is: `key=alice`, `team=search`, `all`.")
    unit: Unit = "tokens"
    per: Per = "total"
    limit: int = 0
    asked: int = 0
    available: int = 0
    resets_at: str | None = Field(None, description="RFC 3339.")


class ErrorAnswer(BaseModel):
    """Every error of the direct endpoints."""

    error: Error


class CalculateAnswer(BaseModel):
    """`token_count` is what a budget would be charged for the prompt; `upper_bound` what it would hold."""

    model_name: str
    token_count: int = Field(ge=0)
    encoding: str = Field(description="The tokenizer that counted.")
    accuracy: Accuracy
    upper_bound: int = Field(ge=0)
    characters: int = Field(ge=0)
    notes: list[str] = Field(description="Why a count is not exact.")


class BatchCalculateAnswer(BaseModel):
    """One count a text, in their order."""

    model_name: str
    encoding: str
    accuracy: Accuracy
    token_counts: list[int]
    total_tokens: int = Field(ge=0)
    count: int = Field(ge=0)


class Learned(BaseModel):
    """A correction that bills have taught."""

    upstream: str
    model: str
    features: list[str]
    kind: str
    factor: float
    tokens: int


class Observations(BaseModel):
    """How counts compare with `n` bills; where there are none the other fields are left out."""

    n: int = Field(ge=0)
    exact_share: float = 0.0
    mean_drift: float = Field(0.0, description="Reported less counted tokens.")
    learned: list[Learned] = []


class CountedModel(BaseModel):
    """A family of models that can be counted."""

    id: str
    object: Literal["model"]
    family: str
    encoding: str | None
    accuracy: Accuracy
    available: bool = Field(description="Whether its tokenizer is installed.")
    engine: str | None = Field(description="The library that counts; null until the tokenizer has been loaded.")
    description: str
    notes: list[str]
    observed: Observations


class ModelList(BaseModel):
    """Every family that can be counted."""

    object: Literal["list"]
    data: list[CountedModel]


class StoreHealth(BaseModel):
    """Whether the budget store answers; `reason` and `on_error` only while it does not."""

    status: Literal["ok", "lost"]
    kind: str
    reason: str = ""
    on_error: Literal["refuse", "allow", "divide"] = "refuse"


class TokenizerHealth(BaseModel):
    """What prompts can be counted with."""

    status: Literal["ok", "none_installed"]
    installed: int = Field(ge=0)
    dir: str


class ConfigHealth(BaseModel):
    """The configuration in force."""

    status: Literal["ok", "degraded"]
    version: str | None = Field(description="How the sha256 of the file in force begins; the same in every worker.")
    problems: list[str] = Field(description="Why the file as it stands cannot be used; the one before is in force.")
    file: str | None
    keys: int = Field(ge=0)
    budgets: int = Field(ge=0)
    upstreams: list[str]


class Health(BaseModel):
    """Whether this gateway can do its work."""

    status: Literal["ok", "degraded"]
    version: str
    uptime_s: float
    store: StoreHealth
    tokenizers: TokenizerHealth
    config: ConfigHealth


class BudgetRow(BaseModel):
    """One limit of one budget as it stands."""

    budget: str
    scope: str = Field(description="Whose counter it is: `key=alice`, `team=search`, `all`.")
    unit: Unit
    per: Per
    sliding: bool
    mode: Literal["enforce", "shadow"]
    limit: int
    used: int
    held: int
    granted: int = Field(description="What operators granted on top for this window.")
    remaining: int = Field(ge=0)
    over: int = Field(ge=0, description="What is taken beyond the limit: let by in `shadow` mode, or owed.")
    resets_at: str | None = Field(description="RFC 3339; null where nothing resets.")


class OwnBudgets(BaseModel):
    """The budgets that concern the caller's key."""

    object: Literal["list"]
    key_id: str
    data: list[BudgetRow]


class CounterList(BaseModel):
    """Counters that hold anything in their current window."""

    object: Literal["list"]
    data: list[BudgetRow]


class KeyRow(BaseModel):
    """A key; its digest is cut short."""

    id: str
    source: Literal["config", "store"]
    status: Literal["active", "disabled", "expired"]
    tags: dict[str, str]
    expires: str | None
    digest: str
    created_at: str | None
    changed_at: str | None


class KeyList(BaseModel):
    """Every key. `unused` names kept keys that the configuration's keys of the same id or digest stand before."""

    object: Literal["list"]
    data: list[KeyRow]
    unused: list[str]


class KeyMade(KeyRow):
    """A key with its credential, which is shown this once."""

    key: str
    warning: str = ""


class Charge(BaseModel):
    """What is held on one counter."""

    counter: str
    amount: int


class HoldRow(BaseModel):
    """What is held for a request that has not ended."""

    id: str
    key_id: str
    model: str
    upstream: str
    input_tokens: int
    output_tokens: int
    age_s: float
    held_at: str | None
    owner: str = Field(description='The worker that attends to it; "" for an admission.')
    owner_seen_s: float | None
    charges: list[Charge]


class HoldList(BaseModel):
    """Every open hold, oldest first."""

    object: Literal["list"]
    data: list[HoldRow]


class HoldReleased(BaseModel):
    """A hold that was given back."""

    id: str
    released: Literal[True]
    hold: HoldRow


class UsageFigures(BaseModel):
    """Sums over requests; beside them stands what they are grouped by."""

    model_config = ConfigDict(extra="allow")

    requests: int
    refused: int
    would_refuse: int = Field(description="Admitted, but a budget in `shadow` mode would have refused.")
    abandoned: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    tokens: int


class UsageReport(BaseModel):
    """What was used, by what was asked for."""

    object: Literal["list"]
    by: list[str]
    since: str | None
    until: str | None
    data: list[UsageFigures]
    total: UsageFigures


class Correction(BaseModel):
    """What is added to counts of one situation."""

    kind: str
    factor: float
    tokens: int
    spread: float


class DriftRow(BaseModel):
    """How counts compare with bills in one situation."""

    upstream: str
    model: str
    features: list[str]
    n: int
    exact_share: float
    mean_drift: float
    learned: Correction | None


class DriftReport(BaseModel):
    """What bills have taught."""

    object: Literal["list"]
    data: list[DriftRow]


class DriftForgotten(BaseModel):
    """What was forgotten."""

    forgotten: int
    data: list[DriftRow]


class Reloaded(BaseModel):
    """What a reload changed, and what waits for a restart."""

    status: Literal["reloaded", "unchanged"]
    changes: list[str]
    needs_restart: list[str]
