"""The direct endpoints, one line each: who may ask, with what, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from gateway.endpoints.admin_budgets import CounterRequest, TopUpRequest
from gateway.endpoints.admin_holds import ReleaseRequest
from gateway.endpoints.admin_keys import CreateRequest, ExpireRequest, TagsRequest
from gateway.endpoints.admin_reports import ForgetRequest
from gateway.endpoints.admission_answers import Facts
from gateway.endpoints.admissions import AdmissionRequest, SettleRequest
from gateway.endpoints.counting import BatchCalculateRequest, CalculateRequest
from gateway.openapi import admissions
from gateway.openapi import answers as shown

Caller = Literal["anyone", "key", "admin"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    `answers` maps a status to its model, or to a media type where the answer is no JSON. `errors` are statuses with
    an `ErrorAnswer`, besides those that follow from the caller and the body. `query` names parameters, what they mean
    and an example; `parameters` is the model that they are read as, where there is one. `example` is a body, `media` an
    example of a body that is read as it comes, by media type; `path_example` stands for the path's parameter.
    """

    summary: str
    answers: Mapping[int, type[BaseModel] | str]
    caller: Caller = "anyone"
    body: type[BaseModel] | None = None
    body_required: bool = True
    errors: tuple[int, ...] = ()
    query: tuple[tuple[str, str, str], ...] = ()
    parameters: type[BaseModel] | None = None
    example: Mapping[str, Any] | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    path_example: str | None = None

    @property
    def all_errors(self) -> tuple[int, ...]:
        """Every status that an `ErrorAnswer` may come with."""
        statuses = set(self.errors)
        if self.caller == "admin":
            statuses |= {401, 403, 503}
        elif self.caller == "key":
            statuses |= {401, 503}
        if self.body is not None:
            statuses |= {400, 413}
        return tuple(sorted(statuses - self.answers.keys()))


def _admin(
    summary: str,
    answer: type[BaseModel],
    *,
    status: int = 200,
    body: type[BaseModel] | None = None,
    body_required: bool = True,
    errors: tuple[int, ...] = (),
    query: tuple[tuple[str, str, str], ...] = (),
    example: Mapping[str, Any] | None = None,
    path_example: str | None = None,
) -> Operation:
    return Operation(
        summary,
        {status: answer},
        caller="admin",
        body=body,
        body_required=body_required,
        errors=errors,
        query=query,
        example=example,
        path_example=path_example,
    )


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/calculate"): Operation(
        "Count a text or a conversation",
        {200: shown.CalculateAnswer},
        body=CalculateRequest,
        errors=(404, 503),
        example={"model_name": "gpt-4o", "text": "How many tokens is this?"},
    ),
    ("POST", "/batch-calculate"): Operation(
        "Count many texts",
        {200: shown.BatchCalculateAnswer},
        body=BatchCalculateRequest,
        errors=(404, 503),
        example={"model_name": "gpt-4o", "texts": ["One.", "And another."]},
    ),
    ("GET", "/models"): Operation("List what can be counted", {200: shown.ModelList}),
    ("GET", "/health"): Operation("Say whether the gateway can work", {200: shown.Health, 503: shown.Health}),
    ("GET", "/metrics"): Operation("Metrics for Prometheus", {200: "text/plain"}),
    ("GET", "/openapi.json"): Operation("This description", {200: "application/json"}),
    ("GET", "/dashboard"): Operation("The page that operators look at", {200: "text/html"}),
    ("GET", "/docs"): Operation("This description for people", {200: "text/html"}),
    ("GET", "/budgets"): Operation("Show the caller's own budgets", {200: shown.OwnBudgets}, caller="key"),
    ("POST", "/v1/admissions"): Operation(
        "Hold what a request needs, without forwarding it",
        {201: admissions.Admission},
        caller="key",
        body=AdmissionRequest,
        errors=(403, 404, 429),
        example={
            "request": {"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]},
        },
    ),
    ("POST", "/v1/admissions/{id}/settle"): Operation(
        "Charge what the provider reported",
        {200: admissions.AdmissionSettled},
        body=SettleRequest,
        errors=(401, 404, 503),
        example={"usage": {"input_tokens": 9, "output_tokens": 42}},
    ),
    ("POST", "/v1/admissions/{id}/release"): Operation(
        "Give an admission back", {200: admissions.AdmissionReleased}, errors=(401, 404, 503)
    ),
    ("POST", "/v1/admissions/{id}/answer"): Operation(
        "Settle by the provider's answer, sent here as it came (JSON or an event stream, whole or cut short)",
        {200: admissions.AdmissionAnswered},
        errors=(400, 401, 404, 413, 503),
        parameters=Facts,
        media={
            "application/json": {"usage": {"prompt_tokens": 9, "completion_tokens": 42, "total_tokens": 51}},
            "text/event-stream": 'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n',
        },
    ),
    ("GET", "/admin/keys"): _admin("List keys", shown.KeyList),
    ("POST", "/admin/keys"): _admin(
        "Make a key",
        shown.KeyMade,
        status=201,
        body=CreateRequest,
        errors=(409,),
        example={"id": "dave", "tags": {"team": "search"}, "expires": "90d"},
    ),
    ("GET", "/admin/keys/{id}"): _admin("Show a key", shown.KeyRow, errors=(404,), path_example="carol"),
    ("POST", "/admin/keys/{id}/rotate"): _admin(
        "Give a key a new credential", shown.KeyMade, errors=(404, 409), path_example="carol"
    ),
    ("POST", "/admin/keys/{id}/disable"): _admin("Refuse a key", shown.KeyRow, errors=(404, 409), path_example="carol"),
    ("POST", "/admin/keys/{id}/enable"): _admin(
        "Admit a key again", shown.KeyRow, errors=(404, 409), path_example="carol"
    ),
    ("POST", "/admin/keys/{id}/expire"): _admin(
        "Say when a key ends",
        shown.KeyRow,
        body=ExpireRequest,
        body_required=False,
        errors=(404, 409),
        path_example="carol",
        example={"at": "30d"},
    ),
    ("POST", "/admin/keys/{id}/tags"): _admin(
        "Replace a key's tags",
        shown.KeyRow,
        body=TagsRequest,
        errors=(404, 409),
        path_example="carol",
        example={"tags": {"team": "ads"}},
    ),
    ("GET", "/admin/budgets"): _admin(
        "List live counters",
        shown.CounterList,
        errors=(404,),
        query=(("budget", "Only this budget's.", "main"), ("scope", "Only this owner's.", "key=carol")),
    ),
    ("POST", "/admin/budgets/{name}/top-up"): _admin(
        "Grant more on a counter for its current window",
        shown.BudgetRow,
        body=TopUpRequest,
        errors=(404,),
        path_example="main",
        example={"scope": "key=carol", "unit": "tokens", "per": "day", "amount": 50000, "id": "ticket-17"},
    ),
    ("POST", "/admin/budgets/{name}/reset"): _admin(
        "Set what was used on a counter to nothing",
        shown.BudgetRow,
        body=CounterRequest,
        body_required=False,
        errors=(404,),
        path_example="main",
        example={"scope": "key=carol", "unit": "tokens", "per": "day"},
    ),
    ("GET", "/admin/holds"): _admin("List open holds", shown.HoldList),
    ("POST", "/admin/holds/{id}/release"): _admin(
        "Give a hold back",
        shown.HoldReleased,
        body=ReleaseRequest,
        body_required=False,
        errors=(404, 409),
        example={"force": True},
    ),
    ("GET", "/admin/usage"): _admin(
        "Sum up the ledger",
        shown.UsageReport,
        errors=(400,),
        query=(
            (
                "by",
                "What to group by, with commas: key, model, upstream, outcome, hour, day, month, any tag.",
                "key,day",
            ),
            ("since", "A date, a time, or a duration ago.", "7d"),
            ("until", "A date, a time, or a duration ago.", "2026-11-30T12:00:00Z"),
            ("key", "Only this key's.", "carol"),
            ("model", "Only this model's.", "gpt-4o"),
        ),
    ),
    ("GET", "/admin/drift"): _admin(
        "Show what bills have taught", shown.DriftReport, query=(("model", "Only this model's.", "gpt-4o"),)
    ),
    ("POST", "/admin/drift/reset"): _admin(
        "Forget what bills have taught",
        shown.DriftForgotten,
        body=ForgetRequest,
        body_required=False,
        example={"model": "gpt-4o"},
    ),
    ("POST", "/admin/reload"): _admin("Read the configuration again", shown.Reloaded, errors=(400, 404)),
}
