"""The process of one engine: `python -m engineroom.compare.worker PORT NAME SETTINGS`.

It loads the engine and runs one batch at a time, in the thread that loaded it: OpenMP starts a new pool of threads for
every thread that calls it. The handlers are coroutines for that reason: FastAPI runs plain functions in other threads.
"""

from __future__ import annotations

import sys
import time
import traceback

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import TypeAdapter

from engineroom.compare.engine_process import Batch, BatchResult, StartTimes
from engineroom.compare.engines import ENGINES, OfflineEngine
from engineroom.compare.settings import EngineSettings
from engineroom.kit.ports import HOST


def create_app(engine: OfflineEngine, times: StartTimes) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def start_times() -> StartTimes:
        return times

    @app.post("/")
    async def run_batch(batch: Batch) -> BatchResult:
        began = time.perf_counter()
        try:
            answers = engine.generate(batch.prompts, batch.max_tokens)
        except Exception as error:
            traceback.print_exc()
            raise HTTPException(500, f"{type(error).__name__}: {error}") from error
        seconds = time.perf_counter() - began
        return BatchResult(seconds=seconds, num_tokens=[len(answer) for answer in answers])

    return app


def main(port: str, name: str, settings_json: str) -> None:
    began = time.monotonic()
    engine = ENGINES[name](TypeAdapter(EngineSettings).validate_json(settings_json))
    load_seconds = time.monotonic() - began
    engine.generate([[1, 2, 3]], 1)
    times = StartTimes(load_seconds=load_seconds, first_token_at=time.monotonic())
    uvicorn.run(create_app(engine, times), host=HOST, port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
