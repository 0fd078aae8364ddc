"""Tokens to text, with the tensors of NVIDIA's `postprocessing`; what it decodes in one call knows of no other call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from transformers import PreTrainedTokenizerFast


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(given["tokenizer_dir"]["string_value"])
        self.skip = given["skip_special_tokens"]["string_value"] == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        """TOKENS_BATCH INT32 [batch, beams, n] and SEQUENCE_LENGTH [batch, beams] to OUTPUT [batch × beams]."""
        tokens = pb.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        rows = zip(tokens.reshape(-1, tokens.shape[-1]), lengths.flat, strict=True)
        texts = [self.tokenizer.decode(row[:n], skip_special_tokens=self.skip).encode() for row, n in rows]
        return pb.InferenceResponse([pb.Tensor("OUTPUT", np.array(texts, dtype=object))])
