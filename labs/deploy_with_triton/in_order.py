"""The shortest BLS program: each request is walked through the models to its end, then comes the next.

It is a model.py of Triton's Python backend, and importable inside Triton only. Lesson 10 shows what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

RENAMED = {"INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths"}
RENAMED |= {"REQUEST_OUTPUT_LEN": "request_output_len", "OUT_END_ID": "end_id"}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        self.engine = given["tensorrt_llm_model_name"]["string_value"]

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                for text in self.answer(request):
                    sender.send(pb.InferenceResponse([pb.Tensor("text_output", text)]))
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            except pb.TritonModelException as error:
                failed = pb.InferenceResponse(error=pb.TritonError(str(error)))
                sender.send(failed, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def answer(self, request: Any) -> Iterator[Any]:
        """STRING [1] with the new text, each time the engine has some."""
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        asked = {"QUERY": given["text_input"], "REQUEST_OUTPUT_LEN": given["max_tokens"]}
        [ready] = call("preprocessing", asked, [*RENAMED])
        tokens = {RENAMED[name]: tensor for name, tensor in ready.items()} | {"streaming": np.array([[True]])}
        for found in call(self.engine, tokens, ["output_ids", "sequence_length"], decoupled=True):
            if found:
                names = {"TOKENS_BATCH": found["output_ids"], "SEQUENCE_LENGTH": found["sequence_length"]}
                [text] = call("postprocessing", names, ["OUTPUT"])
                yield text["OUTPUT"]


def call(
    model: str, tensors: dict[str, Any], outputs: list[str], decoupled: bool = False
) -> Iterator[dict[str, Any]]:
    """All responses of another model; decoupled only where it must be. Raises TritonModelException with its error."""
    inputs = [pb.Tensor(name, value) for name, value in tensors.items()]
    request = pb.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs)
    for response in request.exec(decoupled=True) if decoupled else [request.exec()]:
        if response.has_error():
            raise pb.TritonModelException(response.error().message())
        yield {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
