"""People's ratings of answers over HTTP: `POST /v1/feedback` keeps one, `GET /v1/feedback` sums them up.

A router for `server.create_app(extensions=…)`; where it is not mounted, nothing is kept.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.responses import Response

from temper.errors import Invalid
from temper.measure.quality.ratings import Rating, Ratings
from temper.server.errors import json_response
from temper.server.limits import read_json
from temper.server.state import served

MAX_COMMENT = 4000
MAX_MESSAGES = 200

Short = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Body(BaseModel):
    """A rating, as a client sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Short
    """Of the completion, as its answer gave it."""
    model: Short | None = None
    """Which model answered; the first that is served when left out."""
    rating: Literal["good", "bad"] | None
    """None takes an earlier rating back."""
    version: Short | None = None
    comment: Annotated[str, StringConstraints(max_length=MAX_COMMENT)] | None = None
    messages: list[dict[str, Any]] | None = Field(None, max_length=MAX_MESSAGES)
    """The conversation before the answer, for those who may learn from it later."""
    answer: str | None = None


def create_router(path: Path) -> APIRouter:
    """Ratings are kept in the SQLite file at `path`, which is made when the first one comes."""
    ratings = Ratings(path)
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/feedback")
    async def rate(request: Request) -> Response:
        """Keep a rating: `{"id": "chatcmpl-…", "model": "…", "rating": "good" | "bad" | null, …}`."""
        state = served(request)
        body = _checked(await read_json(request, state.settings))
        model, _, _ = state.find(body.model)
        rater = str(request.scope.get("temper.tenant", "anonymous"))
        if body.rating is None:
            await asyncio.to_thread(ratings.remove, body.id, rater)
        else:
            rating = Rating(
                answer_id=body.id,
                model=model,
                rating=body.rating,
                rater=rater,
                version=body.version,
                comment=body.comment,
                messages=body.messages,
                answer=body.answer,
            )
            await asyncio.to_thread(ratings.add, rating)
        return json_response({"object": "feedback", "id": body.id, "rating": body.rating})

    @router.get("/v1/feedback")
    async def summary(request: Request) -> Response:
        """What the ratings come to, by model and version."""
        return json_response({"object": "list", "data": await asyncio.to_thread(ratings.summary)})

    return router


def _checked(value: dict[str, Any]) -> Body:
    try:
        return Body.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or "body"
        raise Invalid(f"'{param}': {first['msg']}", param=param) from None
