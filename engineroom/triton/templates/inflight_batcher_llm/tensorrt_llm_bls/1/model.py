"""The ensemble as a program (Business Logic Scripting): a thread takes each request through the three models.

Unlike the ensemble, this program notices when a client leaves, and sends `stop` to the engine.
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

from engineroom.triton.backend.parameters import BlsParameters
from engineroom.triton.backend.perf_metrics import PERF_METRICS
from engineroom.triton.backend.sender import ResponseSender, receive

THREADS = 96  # requests that are served at the same time; further ones wait
STOP_THREADS = 32  # both together: `thread-pool-size` of the server's Python backend
REQUIRED = ("text_input", "max_tokens")
PREPROCESSING_INPUTS = {
    "text_input": "QUERY", "decoder_text_input": "DECODER_QUERY", "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT", "stop_words": "STOP_WORDS_DICT", "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS", "end_id": "END_ID", "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}  # fmt: skip
# The engine's name for outputs of preprocessing, then for inputs of this model.
TOKEN_INPUTS = {
    "INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths", "REQUEST_OUTPUT_LEN": "request_output_len",
    "STOP_WORDS_IDS": "stop_words_list", "BAD_WORDS_IDS": "bad_words_list", "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id", "OUT_PAD_ID": "pad_id",
}  # fmt: skip
ENGINE_INPUTS = TOKEN_INPUTS | {
    "top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty", "stream": "streaming",
}  # fmt: skip
ENGINE_OUTPUTS = [
    "output_ids", "sequence_length", "cum_log_probs", "output_log_probs", "batch_index", "sequence_index",
    "num_input_tokens", "num_output_tokens", *PERF_METRICS,
]  # fmt: skip
# Stops the request that has the same id; the engine's model requires the other two inputs.
STOP = {
    "stop": np.array([[True]]),
    "input_lengths": np.ones((1, 1), np.int32),
    "request_output_len": np.ones((1, 1), np.int32),
}
Arrays = dict[str, Any]


class ModelFailed(Exception):
    """Another model responded with an error; `code` is Triton's number for its kind."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message())
        self.code = error.code()


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = BlsParameters.read(config)
        self.accumulate_tokens = parameters.accumulate_tokens
        self.engine_model = parameters.tensorrt_llm_model_name
        self.check_period = parameters.cancellation_check_period_ms / 1000
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.senders: dict[str, ResponseSender] = {}  # by the id of the request to the engine
        self.threads, self.stop_threads = ThreadPoolExecutor(THREADS), ThreadPoolExecutor(STOP_THREADS)
        self.closing = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def execute(self, requests: Sequence[Any]) -> None:
        for _, tensors, sender in receive(requests):
            self.threads.submit(self.serve, tensors, sender)

    def serve(self, tensors: Arrays, sender: ResponseSender) -> None:
        if sender.cancelled():  # while it waited for a thread
            sender.fail("CANCELLED: the request was cancelled.", "CANCELLED")
            return
        request_id = uuid.uuid4().hex
        self.senders[request_id] = sender
        try:
            responses = self.generate(request_id, tensors)
            # One response behind, so that the last one is sent as the final one.
            previous = next(responses)
            for response in responses:
                sender.send(previous)
                previous = response
            sender.send(previous, final=True)
        except ModelFailed as error:
            sender.fail(str(error), error.code)
        except Exception as error:  # noqa: BLE001 (a request without a final response would wait forever)
            sender.fail(f"{type(error).__name__}: {error}")
        finally:
            del self.senders[request_id]

    def generate(self, request_id: str, tensors: Arrays) -> Iterator[Arrays]:
        """One response, with its text, for each response of the engine. Raises ModelFailed."""
        for name in REQUIRED:  # Triton counts the inputs without looking at their names
            if name not in tensors:
                raise ModelFailed(pb.TritonError(f"{name} is missing.", pb.TritonError.INVALID_ARG))
        text_tensors, engine_tensors = {}, {}
        for name, array in tensors.items():
            if name in PREPROCESSING_INPUTS:
                text_tensors[PREPROCESSING_INPUTS[name]] = array
            else:
                engine_tensors[ENGINE_INPUTS.get(name, name)] = array
        [token_tensors] = call("preprocessing", text_tensors, list(TOKEN_INPUTS))
        engine_tensors |= {TOKEN_INPUTS[name]: array for name, array in token_tensors.items()}
        token_ids = np.zeros((1, 1, 0), np.int32)  # [batch, beams, num_tokens]
        for response in call(self.engine_model, engine_tensors, ENGINE_OUTPUTS, request_id, self.decoupled):
            if "output_ids" not in response:
                continue
            new_ids, _ = response.pop("output_ids"), response.pop("sequence_length")
            token_ids = np.concatenate([token_ids, new_ids], axis=2) if self.accumulate_tokens else new_ids
            length = np.array([[token_ids.shape[2]]], np.int32)
            [text] = call(
                "postprocessing", {"TOKENS_BATCH": token_ids, "SEQUENCE_LENGTH": length}, ["OUTPUT"]
            )
            yield {"text_output": text["OUTPUT"]} | response

    def watch(self) -> None:
        """Stop the requests of clients that have left, all at once; repeat it until they have ended."""
        while not self.closing.wait(self.check_period):
            list(self.stop_threads.map(self.stop_if_cancelled, list(self.senders.items())))

    def stop_if_cancelled(self, entry: tuple[str, ResponseSender]) -> None:
        """Send `stop` to the engine if the client of this request has left."""
        request_id, sender = entry
        if sender.cancelled():
            with suppress(ModelFailed):  # the engine's queue is full
                list(call(self.engine_model, STOP, ENGINE_OUTPUTS, request_id, self.decoupled))

    def finalize(self) -> None:
        self.closing.set()
        self.watcher.join()
        self.stop_threads.shutdown()
        self.threads.shutdown()


def call(
    model: str, tensors: Arrays, outputs: list[str], request_id: str = "", decoupled: bool = False
) -> Iterator[Arrays]:
    """The responses of another model. Raises ModelFailed."""
    inputs = [pb.Tensor(name, array) for name, array in tensors.items()]
    request = pb.InferenceRequest(
        model_name=model, request_id=request_id, inputs=inputs, requested_output_names=outputs
    )
    for response in request.exec(decoupled=True) if decoupled else [request.exec()]:
        if response.has_error():
            raise ModelFailed(response.error())
        yield {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
