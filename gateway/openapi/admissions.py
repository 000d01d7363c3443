"""What the endpoints of admissions answer, for the description."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from gateway.openapi.answers import Accuracy, BudgetRow


class HeldTokens(BaseModel):
    """What an admission holds."""

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


class Admission(BaseModel):
    """A hold: to be settled or released within `expires_in_s`."""

    id: str
    allowed: Literal[True]
    input_tokens: int = Field(ge=0)
    accuracy: Accuracy
    held: HeldTokens
    output_cap: int | None = Field(description="The cap that the request must be sent with; null: as it is.")
    expires_in_s: float
    answer_to: str = Field(description="The path that settles by the provider's answer, sent there as it is.")
    budgets: list[BudgetRow]


class AdmissionSettled(BaseModel):
    """An admission that was charged."""

    id: str
    settled: Literal[True]
    budgets: list[BudgetRow]


class AdmissionReleased(BaseModel):
    """An admission that was given back."""

    id: str
    released: Literal[True]
    budgets: list[BudgetRow]


class SettledUsage(BaseModel):
    """What an admission was charged. `source`: reported by the provider, counted from what its answer says, or held."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    source: Literal["reported", "counted", "held"]


class AdmissionAnswered(BaseModel):
    """An admission that ended by its answer: settled, or released where the provider declined."""

    id: str
    settled: Literal[True] | None = None
    released: Literal[True] | None = None
    usage: SettledUsage | None = None
    budgets: list[BudgetRow]
