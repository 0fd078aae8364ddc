"""Text to tokens, with the tensors of NVIDIA's `preprocessing`; one tokenizer call a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from transformers import PreTrainedTokenizerFast

from engineroom.triton.backend.words import TensorError, decode, word_list

NEEDED = {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens"}
UNKNOWN = {"DECODER_QUERY": "decoder_text_input", "BAD_WORDS_DICT": "bad_words"}
UNKNOWN |= {
    "EMBEDDING_BIAS_WORDS": "embedding_bias_words",
    "EMBEDDING_BIAS_WEIGHTS": "embedding_bias_weights",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(given["tokenizer_dir"]["string_value"])
        self.special = given["add_special_tokens"]["string_value"] == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            made = self.tokens(tensors)
        except TensorError as error:
            return pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INVALID_ARG))
        return pb.InferenceResponse([pb.Tensor(name, value) for name, value in made.items()])

    def tokens(self, tensors: dict[str, Any]) -> dict[str, Any]:
        for name, text in NEEDED.items():  # Triton only counts the inputs
            if name not in tensors:
                raise TensorError(f"{text} ({name}) is missing.")
        for name, text in UNKNOWN.items():
            if name in tensors and any(tensors[name].flat):
                raise TensorError(f"{text} ({name}): this engine does not have it; leave it out.")
        queries = decode("text_input (QUERY)", tensors["QUERY"])
        if len(queries) != 1:
            raise TensorError(
                f"text_input (QUERY) has {len(queries)} texts; send one in a request, the engine batches requests."
            )
        ids = self.tokenizer.encode(queries[0], add_special_tokens=self.special)
        stops = [
            word
            for word in decode("stop_words (STOP_WORDS_DICT)", tensors.get("STOP_WORDS_DICT", np.array([])))
            if word
        ]
        stop_ids = [self.tokenizer.encode(word, add_special_tokens=False) for word in stops]
        one, nothing = np.ones((1, 1), np.int32), np.zeros((1, 0), np.int32)
        return {
            "INPUT_ID": np.array([ids], np.int32),
            "REQUEST_INPUT_LEN": len(ids) * one,
            "DECODER_INPUT_ID": self.pad() * one,
            "REQUEST_DECODER_INPUT_LEN": one,
            "BAD_WORDS_IDS": word_list([]),
            "STOP_WORDS_IDS": word_list(stop_ids),
            "EMBEDDING_BIAS": nothing.astype(np.float32),
            "REQUEST_OUTPUT_LEN": tensors["REQUEST_OUTPUT_LEN"],
            "OUT_END_ID": tensors.get("END_ID", self.end() * one),
            "OUT_PAD_ID": tensors.get("PAD_ID", self.pad() * one),
            "OUT_PROMPT_TABLE_EXTRA_IDS": nothing.astype(np.uint64),
        }

    def end(self) -> int:
        return -1 if self.tokenizer.eos_token_id is None else self.tokenizer.eos_token_id

    def pad(self) -> int:
        return self.end() if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
