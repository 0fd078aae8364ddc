"""The exercises of lesson 05."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, sqrt
from statistics import mean, median

from engineroom.load.workload import Turn
from labs.kit.check import (
    Mistake,
    exercise,
    require,
    require_names,
    require_whole_number,
    shown,
)

LIMIT_NAMES = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")
REMEDIES = {"prompt": "a", "machine": "b", "file": "c"}


@exercise("05.limits", version=1, title="Choose limits from a workload", minutes=8)
def limits(limits: object, trace: Sequence[Turn], in_flight: float) -> None:
    values = require_names(limits, LIMIT_NAMES)
    for name, value in values.items():
        require(
            not isinstance(value, float) or value.is_integer(),
            f"`{name}` is {value!r}. A limit is a whole number: round up with `math.ceil`.",
        )
    numbers = {name: require_whole_number(name, values[name], at_least=1) for name in LIMIT_NAMES}
    _check_input_len(numbers["max_input_len"], trace)
    _check_seq_len(numbers["max_seq_len"], numbers["max_input_len"], trace)
    _check_batch_size(numbers["max_batch_size"], in_flight, len(trace))
    _check_num_tokens(numbers["max_num_tokens"], numbers["max_batch_size"], trace)


def _check_input_len(max_input_len: int, trace: Sequence[Turn]) -> None:
    prompts = [turn.prompt for turn in trace]
    num_refused = sum(prompt > max_input_len for prompt in prompts)
    refused = f"{num_refused} of {len(trace)} prompts are longer, and would be refused."
    if num_refused:
        for name, average in (("mean", mean(prompts)), ("median", median(prompts))):
            require(
                max_input_len not in (floor(average), ceil(average)),
                f"`max_input_len` {max_input_len} is the {name} of the prompts: {refused}",
            )
    require(
        not num_refused,
        f"`max_input_len` {max_input_len}: {refused} Percentiles are for latencies. A limit must hold the longest "
        f"prompt.",
        f"The longest prompt has {max(prompts)} tokens.",
    )
    require(
        max_input_len <= 2 * max(turn.total for turn in trace),
        f"`max_input_len` {max_input_len:,}: the longest prompt has {max(prompts):,} tokens. Some headroom is wise, "
        f"but not this much: a prompt of that length delays every request in flight.",
    )


def _check_seq_len(max_seq_len: int, max_input_len: int, trace: Sequence[Turn]) -> None:
    longest, longest_answer = max(turn.total for turn in trace), max(turn.output for turn in trace)
    num_refused = sum(turn.total > max_seq_len for turn in trace)
    require(
        not num_refused or max_seq_len != longest_answer,
        f"`max_seq_len` {max_seq_len} is the longest answer. The limit counts prompt and answer together.",
    )
    require(
        max_seq_len > max_input_len,
        f"`max_seq_len` {max_seq_len} counts prompt and answer together. With `max_input_len` {max_input_len}, the "
        f"longest prompt gets no answer.",
    )
    require(
        not num_refused,
        f"`max_seq_len` {max_seq_len}: {num_refused} of {len(trace)} requests are longer, prompt and answer together.",
        f"The longest request of the trace has {longest} tokens, `max(turn.total for turn in trace)`.",
    )
    require(
        max_seq_len <= 2 * (max(turn.prompt for turn in trace) + longest_answer),
        f"`max_seq_len` {max_seq_len:,}: because the model can? A single request may then need the memory of "
        f"{max_seq_len // longest} of your longest requests, and the others wait for it.",
        f"Your longest request has {longest:,} tokens; up to twice that is prudent.",
    )


def _check_batch_size(max_batch_size: int, in_flight: float, num_requests: int) -> None:
    require(
        max_batch_size >= in_flight,
        f"`max_batch_size` {max_batch_size}: by Little's law, {in_flight:.1f} requests are in flight on average. With "
        f"fewer slots, the queue grows for as long as requests arrive.",
    )
    require(
        max_batch_size >= in_flight + sqrt(in_flight),
        f"`max_batch_size` {max_batch_size} holds the average, {in_flight:.1f}, and nothing more. Arrivals bunch: the "
        f"standard deviation of a Poisson process is the square root of its mean. Leave headroom for it.",
        f"Two standard deviations more, {ceil(in_flight + 2 * sqrt(in_flight))}, are nearly always enough.",
    )
    is_too_large = max_batch_size > 8 * in_flight + 8
    require(
        not (is_too_large and max_batch_size == num_requests),
        f"`max_batch_size` {max_batch_size:,} is the number of requests in the trace. They do not arrive at once: "
        f"{in_flight:.1f} are in flight on average.",
    )
    require(
        not is_too_large,
        f"`max_batch_size` {max_batch_size:,} for {in_flight:.1f} requests in flight: most slots would never be used. "
        f"TensorRT-LLM sizes buffers by it, and a full batch makes every answer slow.",
    )


def _check_num_tokens(max_num_tokens: int, max_batch_size: int, trace: Sequence[Turn]) -> None:
    median_prompt = sorted(turn.prompt for turn in trace)[len(trace) // 2]
    remainder = max_num_tokens - max_batch_size
    require(
        remainder >= 0,
        f"`max_num_tokens` {max_num_tokens} is below `max_batch_size` {max_batch_size}. Every running request takes "
        f"one token of each step: the build refuses such limits.",
    )
    require(
        remainder >= median_prompt,
        f"`max_num_tokens` {max_num_tokens}: with {max_batch_size} requests running, a step has {remainder} tokens "
        f"left for new prompts, and the median prompt has {median_prompt}. The median prompt would need several "
        f"steps, and a long prompt very many.",
    )
    largest_step = max_batch_size + max(turn.prompt for turn in trace)
    require(
        max_num_tokens <= 4 * largest_step,
        f"`max_num_tokens` {max_num_tokens:,}: the engine reserves memory for a step of that length, and no request "
        f"gets a token while it runs. {largest_step:,} tokens hold a full batch and your longest prompt in one "
        f"step.",
    )


@exercise("05.refusals", version=1, title="Read three refusals", minutes=4)
def refusals(remedy: object) -> None:
    letters = {name: _letter(name, value) for name, value in require_names(remedy, REMEDIES).items()}
    _check_letters(letters)


def _letter(name: str, value: object) -> str:
    """Return the letter that the learner chose, also from "A", " a" or "a: send a shorter prompt"."""
    text = value.strip().lower() if isinstance(value, str) else ""
    letter = text.partition(":")[0].strip("( )")
    require(letter in ("a", "b", "c", "d"), f"`{name}` is {shown(value)}; choose 'a', 'b', 'c' or 'd'.")
    return letter


def _check_letters(remedy: Mapping[str, str]) -> None:
    if "d" in remedy.values():
        raise Mistake(
            "A checkpoint depends on no limit and no machine, and this one did not change: it need not be converted "
            "again."
        )
    require(
        remedy["prompt"] != "b",
        "The engine is for this machine already. A build with the same limits would refuse the prompt again.",
    )
    require(
        remedy["prompt"] == "a", "The file is as it was built. Read the message: which limit does it name?"
    )
    require(
        remedy["machine"] != "c",
        "The copy is as good as the original, but this is another machine. Compiled code runs only on the kind of "
        "machine that it was built for.",
    )
    require(
        remedy["machine"] == "b",
        "The message names no limit. Read what the engine was built for, and what it was opened on.",
    )
    require(
        remedy["file"] != "b",
        "That works, but takes longest. The original is still there, and the message names the shorter way.",
    )
    require(remedy["file"] == "c", "No request was sent yet. Read what the message says about the file.")
