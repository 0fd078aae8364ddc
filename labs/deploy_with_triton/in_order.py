"""The shortest BLS program: it takes one request through the models to its end, and then the next.

This is a model.py of Triton's Python backend, importable inside Triton only. Lesson 10 shows what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

# What preprocessing calls its outputs, and what the engine calls its inputs.
ENGINE_INPUTS = {
    "INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths", "REQUEST_OUTPUT_LEN": "request_output_len",
    "OUT_END_ID": "end_id",
}  # fmt: skip


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.engine_model = parameters["tensorrt_llm_model_name"]["string_value"]

    def execute(self, requests: Sequence[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            try:
                for text in self.generate(request):
                    sender.send(pb.InferenceResponse([pb.Tensor("text_output", text)]))
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            except pb.TritonModelException as error:
                response = pb.InferenceResponse(error=pb.TritonError(str(error)))
                sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def generate(self, request: Any) -> Iterator[Any]:
        """STRING [1] with the new text, for each response of the engine."""
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        query = {"QUERY": tensors["text_input"], "REQUEST_OUTPUT_LEN": tensors["max_tokens"]}
        [tokens] = call("preprocessing", query, list(ENGINE_INPUTS))
        inputs = {ENGINE_INPUTS[name]: array for name, array in tokens.items()} | {
            "streaming": np.array([[True]])
        }
        for output in call(self.engine_model, inputs, ["output_ids", "sequence_length"], decoupled=True):
            if output:
                batch = {"TOKENS_BATCH": output["output_ids"], "SEQUENCE_LENGTH": output["sequence_length"]}
                [text] = call("postprocessing", batch, ["OUTPUT"])
                yield text["OUTPUT"]


def call(
    model: str, tensors: dict[str, Any], outputs: list[str], decoupled: bool = False
) -> Iterator[dict[str, Any]]:
    """All responses of another model; `decoupled` is for models that send several. Raises TritonModelException."""
    inputs = [pb.Tensor(name, array) for name, array in tensors.items()]
    request = pb.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs)
    for response in request.exec(decoupled=True) if decoupled else [request.exec()]:
        if response.has_error():
            raise pb.TritonModelException(response.error().message())
        yield {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
