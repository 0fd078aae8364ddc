"""Text to tokens, with the tensors of NVIDIA's `preprocessing`; one tokenizer call for each request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from engineroom.triton.backend.parameters import PreprocessingParameters
from engineroom.triton.backend.words import TensorError, decode, word_list

# Each tensor, and its name in the text models; error messages have both names. As in NVIDIA's preprocessing, texts that
# are empty change nothing, and neither do EMBEDDING_BIAS_WEIGHTS without words.
REQUIRED = {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens"}
UNSUPPORTED = {
    "DECODER_QUERY": "decoder_text_input",
    "BAD_WORDS_DICT": "bad_words",
    "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = PreprocessingParameters.read(json.loads(args["model_config"]))
        self.tokenizer = parameters.load_tokenizer()
        self.add_special_tokens = parameters.add_special_tokens
        eos_token_id, pad_token_id = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        self.end_id = -1 if eos_token_id is None else eos_token_id
        self.pad_id = self.end_id if pad_token_id is None else pad_token_id

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            check_names(tensors)
            outputs = self.tokenize(tensors)
        except TensorError as error:
            return pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
        return pb.InferenceResponse([pb.Tensor(name, array) for name, array in outputs.items()])

    def tokenize(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The output tensors, each [1, n]; the word lists [1, 2, n]. Raises TensorError, which names the tensor."""
        queries = decode("text_input (QUERY)", tensors["QUERY"])
        if len(queries) != 1:
            raise TensorError(
                f"text_input (QUERY) has {len(queries)} texts; send one per request, since the engine batches requests."
            )
        input_ids = self.tokenizer.encode(queries[0], add_special_tokens=self.add_special_tokens)
        stop_words = decode("stop_words (STOP_WORDS_DICT)", tensors.get("STOP_WORDS_DICT", np.array([])))
        stop_word_ids = [self.tokenizer.encode(word, add_special_tokens=False) for word in stop_words]
        return {
            "INPUT_ID": np.array([input_ids], np.int32),
            "REQUEST_INPUT_LEN": scalar(len(input_ids)),
            "DECODER_INPUT_ID": scalar(self.pad_id),
            "REQUEST_DECODER_INPUT_LEN": scalar(1),
            "BAD_WORDS_IDS": word_list([]),
            "STOP_WORDS_IDS": word_list(stop_word_ids),
            "EMBEDDING_BIAS": np.zeros((1, 0), np.float32),
            "REQUEST_OUTPUT_LEN": tensors["REQUEST_OUTPUT_LEN"],
            "OUT_END_ID": tensors.get("END_ID", scalar(self.end_id)),
            "OUT_PAD_ID": tensors.get("PAD_ID", scalar(self.pad_id)),
            "OUT_PROMPT_TABLE_EXTRA_IDS": np.zeros((1, 0), np.uint64),
        }


def check_names(tensors: dict[str, Any]) -> None:
    """Triton counts the inputs without looking at their names. Raises TensorError for a missing or unsupported one."""
    for name, text_name in REQUIRED.items():
        if name not in tensors:
            raise TensorError(f"{text_name} ({name}) is missing.")
    for name, text_name in UNSUPPORTED.items():
        if name in tensors and any(tensors[name].flat):
            raise TensorError(f"{text_name} ({name}): this engine does not support it. Leave it out.")


def scalar(value: int) -> Any:
    """int32 [1, 1]."""
    return np.array([[value]], np.int32)
