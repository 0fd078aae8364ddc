"""Run a learner's `leave` and `roll_out` on a real Triton, and note what they did to it for the checks to judge.

However an attempt ends, the next one starts from an idle engine: what the learner left running is cancelled.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc.aio import InferenceServerClient

from engineroom.kit.diagnose import diagnose
from engineroom.kit.process import ServerFailed
from engineroom.triton.render import CONFIG, parse_config, version_numbers
from engineroom.triton.rollout import ENGINE_PATH
from engineroom.triton.server import Triton
from labs.deploy_with_triton.requests import (
    TritonResponse,
    engine_steps,
    model_versions,
    run_under_load,
    wait_until_idle,
)
from labs.kit.calls import DeadlineExceeded, deadline

SECONDS = 120.0  # for one attempt; none in the lesson takes that long
BLOCKED_SECONDS = 15.0  # more, before code that blocks the event loop is interrupted


@dataclass
class Outcome:
    """How a call of the learner's function ended.

    `not_awaited`: the names of coroutines that it created and never awaited.
    """

    value: object = None
    error: Exception | None = None
    timed_out: bool = False
    not_awaited: list[str] = field(default_factory=list)


async def run(function: Callable[..., object], *arguments: object, seconds: float = SECONDS) -> Outcome:
    """Call the function and await what it returns, for at most `seconds`. Raises nothing that the function raises."""
    outcome, limit = Outcome(), asyncio.timeout(seconds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with deadline(seconds + BLOCKED_SECONDS):
                async with limit:
                    outcome.value = function(*arguments)
                    if isawaitable(outcome.value):
                        outcome.value = await outcome.value
        except DeadlineExceeded:
            outcome.timed_out = True
        except Exception as error:  # noqa: BLE001 (the check names it)
            outcome.timed_out = limit.expired()
            outcome.error = None if outcome.timed_out else error
    messages = "\n".join(str(warning.message) for warning in caught)
    outcome.not_awaited = re.findall(r"coroutine '(?:\w+\.)*(\w+)' was never awaited", messages)
    return outcome


class LongAnswer:
    """The stream of one answer: an async iterator of (result, error) with `cancel()`, as tritonclient has it.

    It notes how many responses were read, the first error among them, whether the stream was read to its end, and
    whether it was cancelled.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.num_responses, self.error = 0, ""
        self.read_to_end = False
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            result, error = await self.stream.__anext__()
        except StopAsyncIteration:
            self.read_to_end = True
            raise
        except asyncio.CancelledError:  # gRPC cancels the call of a reader that is cancelled
            self.cancelled = True
            raise
        self.num_responses += 1
        self.error = self.error or str(error or "")
        return result, error

    def cancel(self) -> Any:
        self.cancelled = True
        return self.stream.cancel()


@dataclass
class Departure:
    """What a reader did with one long answer, and the engine's steps when it was idle again.

    `cancelled`: whether the reader cancelled the stream, rather than this module afterwards. `stream_error`: of the
    first response that was one.
    """

    outcome: Outcome
    num_responses: int
    read_to_end: bool
    cancelled: bool
    steps_at_rest: int
    stream_error: str = ""


async def try_leave(
    leave: Callable[..., object],
    open_stream: Callable[[], object],
    triton: Triton,
    seconds: float = SECONDS,
) -> Departure:
    """Let `leave` read a new stream. Returns when the engine has no request.

    Raises TimeoutError when it still has some after requests.TIMEOUT seconds, and ServerFailed when Triton has ended.
    """
    require_alive(triton)
    await wait_until_idle(triton)
    answer = LongAnswer(open_stream())
    outcome = await run(leave, answer, seconds=seconds)
    cancelled = answer.cancelled
    answer.cancel()
    require_alive(triton)
    await wait_until_idle(triton)
    steps_at_rest = engine_steps(triton)
    return Departure(
        outcome, answer.num_responses, answer.read_to_end, cancelled, steps_at_rest, answer.error
    )


@dataclass
class RollOut:
    """What a roll-out did under load.

    `states`: of each version when it returned. `versions`: the folders of the model. `engine_path`: the engine that
    config.pbtxt names, "" when Triton could not read the file.
    """

    outcome: Outcome
    responses: list[TritonResponse]
    start_time: float
    end_time: float
    states: dict[str, str]
    versions: list[int]
    engine_path: str


async def try_roll_out(
    roll_out: Callable[..., object],
    engine_dir: Path,
    triton: Triton,
    folder: Path,
    send_request: Callable[[], Awaitable[TritonResponse]],
    seconds: float = SECONDS,
) -> RollOut:
    """Run `roll_out(engine_dir)` while users send requests to the model in `folder`.

    Raises ServerFailed when Triton has ended.
    """
    outcome, states = Outcome(), dict[str, str]()

    async def action() -> None:
        nonlocal outcome, states
        outcome = await run(roll_out, engine_dir, seconds=seconds)
        require_alive(triton)
        async with InferenceServerClient(triton.grpc) as client:
            states = await model_versions(client, folder.name)

    responses, start_time, end_time = await run_under_load(action, send_request)
    return RollOut(
        outcome, responses, start_time, end_time, states, version_numbers(folder), _engine_path(folder)
    )


def require_alive(triton: Triton) -> None:
    """Raise ServerFailed with cause and remedy when the server has ended: no answer can be judged then."""
    if not triton.server.alive():
        triton.stop()
        reason, remedy = diagnose(triton.server.logs(300), triton.server.exit_code)
        raise ServerFailed(f"Triton has ended. {reason}\nWhat to do: {remedy}")


def _engine_path(folder: Path) -> str:
    try:
        return parse_config((folder / CONFIG).read_text()).parameters[ENGINE_PATH].string_value
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return ""
