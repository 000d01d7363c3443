"""The sections of config.yaml about what a gateway tells others: its metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.config.fields import option

Names = Annotated[int, Field(ge=0, le=10_000)]


class MetricsSection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    most_models: Names = option(
        100, "How many model names `gen_ai_*` metrics tell apart; later ones count as `other`.", example="100"
    )
    most_keys: Names = option(
        0, "How many keys `tollgate_key_tokens_total` tells apart; with 0 no metric names a key.", example="50"
    )
