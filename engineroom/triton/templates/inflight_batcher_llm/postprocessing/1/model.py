"""Tokens to text, with the tensors of NVIDIA's `postprocessing`. Each call decodes its tokens on their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

from engineroom.triton.backend.parameters import PostprocessingParameters


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = PostprocessingParameters.read(json.loads(args["model_config"]))
        self.tokenizer = parameters.load_tokenizer()
        self.skip_special_tokens = parameters.skip_special_tokens

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        """TOKENS_BATCH int32 [batch, beams, num_tokens], SEQUENCE_LENGTH [batch, beams] -> OUTPUT [batch × beams]."""
        token_ids = pb.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
        lengths = pb.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
        rows = zip(token_ids.reshape(-1, token_ids.shape[-1]), lengths.flat, strict=True)
        texts = [
            self.tokenizer.decode(row[:length], skip_special_tokens=self.skip_special_tokens).encode()
            for row, length in rows
        ]
        return pb.InferenceResponse([pb.Tensor("OUTPUT", np.array(texts, dtype=object))])
