"""The exercises of lesson 05."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, sqrt
from typing import Any

from engineroom.checkpoint import ModelConfig
from engineroom.load.workload import Turn
from labs.kit.check import exercise, require, require_function, require_names, require_number

NAMES = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")
TOY = ModelConfig("LlamaForCausalLM", 24, 3, 8, 2, 5, 12, 10)
REMEDIES = {"prompt": "a", "machine": "b", "file": "c"}


@exercise("05.limits", version=1, title="Choose limits from a workload", minutes=8)
def limits(limits: dict[str, int], trace: Sequence[Turn], in_flight: float) -> None:
    require_names(limits, NAMES)
    for name, value in limits.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        require(
            whole, f"`{name}` is {value!r}. A limit is a whole number from 1 up: round up with `math.ceil`."
        )
    _input_len(limits["max_input_len"], trace)
    _seq_len(limits, trace)
    _batch_size(limits["max_batch_size"], in_flight)
    _num_tokens(limits, trace)


def _input_len(most: int, trace: Sequence[Turn]) -> None:
    refused, longest = sum(turn.prompt > most for turn in trace), max(turn.prompt for turn in trace)
    require(
        not refused,
        f"`max_input_len` {most}: {refused} of {len(trace)} prompts are longer, and would be refused. A percentile is "
        f"for latency. A limit must hold the longest.",
        f"The longest prompt has {longest} tokens.",
    )
    require(
        most <= 2 * max(turn.total for turn in trace),
        f"`max_input_len` {most:,}: the longest prompt has {longest:,} tokens. Some room is wise, this much is not: a "
        f"prompt that long delays everybody in flight.",
    )


def _seq_len(limits: Mapping[str, int], trace: Sequence[Turn]) -> None:
    most, longest = limits["max_seq_len"], max(turn.total for turn in trace)
    require(
        most > limits["max_input_len"],
        f"`max_seq_len` {most}: prompt and answer together. With `max_input_len` {limits['max_input_len']} the "
        f"longest prompt gets no answer.",
    )
    refused = sum(turn.total > most for turn in trace)
    require(
        not refused,
        f"`max_seq_len` {most}: prompt and answer together are longer in {refused} of {len(trace)} requests.",
        f"The longest request of the trace is {longest} tokens, `max(turn.total for turn in trace)`.",
    )
    require(
        most <= 2 * (max(turn.prompt for turn in trace) + max(turn.output for turn in trace)),
        f"`max_seq_len` {most:,}: because the model can? One request may then reserve the KV cache of "
        f"{most // longest} of your longest, and under guaranteed_no_evict the others wait for it.",
        f"Your longest request has {longest:,} tokens; up to double that is prudent.",
    )


def _batch_size(most: int, in_flight: float) -> None:
    require(
        most >= in_flight,
        f"`max_batch_size` {most}: Little's law puts {in_flight:.1f} requests in flight on average. With fewer seats "
        f"the queue grows for as long as people arrive.",
    )
    require(
        most >= in_flight + sqrt(in_flight),
        f"`max_batch_size` {most} holds the average, {in_flight:.1f}, and nothing more. Arrivals bunch: a Poisson "
        f"process spreads by the square root of its mean. Leave room for it.",
        f"Two such spreads more, {ceil(in_flight + 2 * sqrt(in_flight))}, are enough nearly always.",
    )
    require(
        most <= 8 * in_flight + 8,
        f"`max_batch_size` {most:,} for {in_flight:.1f} requests in flight: seats that nobody takes. TensorRT-LLM "
        f"sizes buffers by it, and a full batch makes every answer slow.",
    )


def _num_tokens(limits: Mapping[str, int], trace: Sequence[Turn]) -> None:
    most, seats = limits["max_num_tokens"], limits["max_batch_size"]
    median = sorted(turn.prompt for turn in trace)[len(trace) // 2]
    require(
        most >= seats,
        f"`max_num_tokens` {most} is below `max_batch_size` {seats}. Every running request takes one token of each "
        f"step: the build refuses that.",
    )
    require(
        most - seats >= median,
        f"`max_num_tokens` {most}: with {seats} requests running, {most - seats} tokens of a step are left for new "
        f"prompts, and the median prompt has {median}. It would need several steps; the long ones, very many.",
    )
    largest = seats + max(turn.prompt for turn in trace)
    require(
        most <= 4 * largest,
        f"`max_num_tokens` {most:,}: activations are reserved for it, and while a step that long runs nobody gets a "
        f"token. {largest:,} hold a full batch and your longest prompt in one step.",
    )


@exercise("05.kv", version=1, title="KV cache for one token", minutes=5)
def kv(
    bytes_per_token: Callable[[ModelConfig, int], float],
    model: ModelConfig,
    itemsize: int,
    measured: Mapping[str, float],
) -> None:
    require_function(bytes_per_token, "bytes_per_token")
    got: Any = bytes_per_token(TOY, 2)
    right, everything = 2 * 3 * 2 * 5 * 2, 2 * 3 * 24 * 2
    mistakes = {
        right / 2: "Half of it. Keys and values are kept, each of `itemsize` bytes.",
        right / 4: "A quarter of it. Keys and values, each of `itemsize` bytes.",
        right * 4: "You took the query heads. Only KV heads are cached: `num_key_value_heads`.",
        right / 3: "That is one layer. Every layer keeps keys and values of its own.",
        right / 5 * 24: "You took `hidden_size`. A KV head is `head_size` wide.",
        everything: "`hidden_size` would be right without grouped-query attention: KV heads × `head_size` is less.",
        right * 8: "Those are bits.",
    }
    require_number(got, mistakes)
    require(
        got == right,
        f"For 3 layers of 2 KV heads, 5 wide, 2 bytes a value, I get {right}, you {got}.",
        "2 (key and value) × layers × KV heads × head size × bytes of a value",
    )
    predicted = bytes_per_token(model, itemsize)
    for name, seen in measured.items():
        require(
            abs(predicted - seen) < 0.01 * seen,
            f"On my example you are right, but {name} uses {seen:,.0f} bytes a token and you say {predicted:,.0f}.",
        )


@exercise("05.fit", version=1, title="How many of your longest requests fit", minutes=5)
def fit(most_requests: Callable[[float, int, int], int]) -> None:
    require_function(most_requests, "most_requests")
    pool, each, tokens = 10_000_000, 1_000, 1_000  # 312 whole blocks of 32 tokens; 32 blocks a request
    got: Any = most_requests(pool, each, tokens)
    mistakes = {
        10: "You counted tokens. The cache hands out whole blocks of 32, and the last of a request is rarely full.",
        312: "That is how many blocks there are. Each request needs several.",
        10_000: "That is how many tokens fit. Each request has 1,000 of them.",
        32: "That is how many blocks one request needs. How often does the cache hold that many?",
    }
    require_number(got, mistakes)
    require(
        got in (9, 9.0) or abs(got - 312 / 32) > 0.2,
        f"{got:.4g} requests: round down. What does not fit whole is not started.",
    )
    require(
        got == 9,
        f"10,000,000 bytes, 1,000 a token, requests of 1,000 tokens: I get 9, you {got}.",
        "Blocks in the cache: `kv_cache // (bytes_per_token * 32)`. Blocks a request: `math.ceil(tokens / 32)`.",
    )
    require(
        most_requests(pool, each, 100_000) == 0,
        "A request that needs more blocks than there are does not fit: the answer is 0 then.",
    )


@exercise("05.refusals", version=1, title="Read three refusals", minutes=4)
def refusals(remedy: dict[str, str]) -> None:
    require_names(remedy, REMEDIES)
    for name, value in remedy.items():
        require(value in ("a", "b", "c", "d"), f"`{name}` is {value!r}; choose 'a', 'b', 'c' or 'd'.")
    require(
        "d" not in remedy.values(),
        "A checkpoint is bound to no limit and no machine, and nobody touched it: it need not be converted again.",
    )
    require(
        remedy["prompt"] != "b",
        "The engine is for this machine already. Built again with the same limits it would say the same.",
    )
    require(remedy["prompt"] == "a", "The file is as it was built. Read which limit the message names.")
    require(
        remedy["machine"] != "c",
        "The copy is as good as the original: the machine is another one. Compiled code is bound to it.",
    )
    require(
        remedy["machine"] == "b",
        "No limit is named there. Read what it was built for, and what it was opened on.",
    )
    require(
        remedy["file"] != "b",
        "That works, and takes longest. The original is still there, and the message names the shorter way.",
    )
    require(remedy["file"] == "c", "No request was sent yet. Read what the message says of the file.")
