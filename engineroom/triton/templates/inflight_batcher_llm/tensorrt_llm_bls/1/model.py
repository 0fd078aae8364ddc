"""The ensemble as a program (Business Logic Scripting): a thread walks each request through the three models.

Unlike in the ensemble, a client that leaves is noticed here, and `stop` is sent to the engine.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from engineroom.triton.backend.sender import Sender, receive

THREADS = 256  # requests at a time; more wait
PREPROCESSING = {
    "text_input": "QUERY", "decoder_text_input": "DECODER_QUERY", "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT", "stop_words": "STOP_WORDS_DICT", "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS", "end_id": "END_ID", "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}  # fmt: skip
TOKENS = {
    "INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths", "REQUEST_OUTPUT_LEN": "request_output_len",
    "STOP_WORDS_IDS": "stop_words_list", "BAD_WORDS_IDS": "bad_words_list", "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id", "OUT_PAD_ID": "pad_id",
}  # fmt: skip
ENGINE = TOKENS | {"top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty"}
ENGINE["stream"] = "streaming"
OUTPUTS = [
    "output_ids",
    "sequence_length",
    "cum_log_probs",
    "output_log_probs",
    "batch_index",
    "sequence_index",
]
OUTPUTS += ["num_input_tokens", "num_output_tokens"]
Arrays = dict[str, Any]


class Failed(Exception):
    """A model answered with an error; `code` is Triton's name of its kind."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.code = error.code()


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.accumulate = given["accumulate_tokens"] == "true"
        self.engine = given["tensorrt_llm_model_name"]
        self.period = int(given["cancellation_check_period_ms"]) / 1000
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.open: dict[str, Sender] = {}
        self.threads = ThreadPoolExecutor(THREADS)
        self.closing = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def execute(self, requests: Sequence[Any]) -> None:
        for _, given, sender in receive(requests):
            self.threads.submit(self.serve, given, sender)

    def serve(self, given: Arrays, sender: Sender) -> None:
        name = uuid.uuid4().hex
        self.open[name] = sender
        try:
            answers = self.generate(name, given)
            last = next(answers)
            for response in answers:
                sender.send(last)
                last = response
            sender.send(last, final=True)
        except Failed as error:
            sender.fail(str(error), error.code)
        except Exception as error:
            sender.fail(f"{type(error).__name__}: {error}")
        finally:
            del self.open[name]

    def generate(self, name: str, given: Arrays) -> Iterator[Arrays]:
        """The responses to one request, as the engine gives them, each with its text."""
        for name in {"text_input", "max_tokens"} - given.keys():  # Triton only counts the inputs
            raise Failed(pb.TritonError(f"{name} is missing.", pb.TritonError.INVALID_ARG))
        query = {PREPROCESSING[key]: value for key, value in given.items() if key in PREPROCESSING}
        rest = {key: value for key, value in given.items() if key not in PREPROCESSING}
        [ready] = call("preprocessing", query, list(TOKENS))
        asked = {ENGINE.get(key, key): value for key, value in (rest | ready).items()}
        tokens = np.zeros((1, 1, 0), np.int32)
        for found in call(self.engine, asked, OUTPUTS, name, self.decoupled):
            if "output_ids" in found:
                new, _ = found.pop("output_ids"), found.pop("sequence_length")
                tokens = np.concatenate([tokens, new], axis=2) if self.accumulate else new
                batch = {"TOKENS_BATCH": tokens, "SEQUENCE_LENGTH": np.array([[tokens.shape[2]]], np.int32)}
                [text] = call("postprocessing", batch, ["OUTPUT"])
                yield {"text_output": text["OUTPUT"]} | found

    def watch(self) -> None:
        """A client that has gone: the engine is told, and again until the request has ended."""
        one = np.ones((1, 1), np.int32)
        stop = {"stop": np.array([[True]]), "input_lengths": one, "request_output_len": one}
        while not self.closing.wait(self.period):
            for name, sender in list(self.open.items()):
                if sender.cancelled():
                    with suppress(Failed):  # its queue is full
                        list(call(self.engine, stop, OUTPUTS, name, self.decoupled))

    def finalize(self) -> None:
        self.closing.set()
        self.watcher.join()
        self.threads.shutdown()


def call(
    model: str, tensors: Arrays, outputs: list[str], name: str = "", decoupled: bool = False
) -> Iterator[Arrays]:
    """The responses of another model. Raises Failed with its error."""
    inputs = [pb.Tensor(key, value) for key, value in tensors.items()]
    request = pb.InferenceRequest(
        model_name=model, request_id=name, inputs=inputs, requested_output_names=outputs
    )
    for response in request.exec(decoupled=True) if decoupled else [request.exec()]:
        if response.has_error():
            raise Failed(response.error())
        yield {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
