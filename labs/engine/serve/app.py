"""OpenAI's HTTP API before anything that generates tokens: our executor here, a Triton server in lesson 10."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import from_json
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Send

from labs.engine.runtime.executor import EngineStopped, Output, QueueFull
from labs.engine.runtime.sampling import SamplingParams
from labs.engine.runtime.scheduler import RequestError
from labs.engine.serve import answers
from labs.engine.serve.metrics import Load, Metrics
from labs.engine.serve.protocol import (
    Card,
    Cards,
    ChatRequest,
    Completion,
    CompletionRequest,
    Failure,
    Problem,
    SamplingRequest,
)
from labs.engine.serve.text import Piece, Vocabulary, pieces
