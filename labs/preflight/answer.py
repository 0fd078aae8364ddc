"""The course model in this process, through Hugging Face transformers: the simplest way to run a model."""

from __future__ import annotations

from typing import Any, NamedTuple


class LocalCompletion(NamedTuple):
    """An answer, with the tokens of its prompt and of the answer itself."""

    text: str
    prompt_tokens: int
    output_tokens: int


class Answerer:
    """Loads a causal language model once: float32 on a CPU, bfloat16 on a GPU. ``ask`` decodes greedily."""

    def __init__(self, model: str = "course") -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from engineroom.vllm.model import locate

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # it warns of temperature 0, which vLLM needs in generation_config.json
        gpu = torch.cuda.is_available()
        self.tokenizer = AutoTokenizer.from_pretrained(locate(model))
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            locate(model), dtype=torch.bfloat16 if gpu else torch.float32, device_map="cuda" if gpu else None
        )

    @property
    def parameters(self) -> int:
        """The number of weights of the model."""
        return sum(weight.numel() for weight in self.model.parameters())

    def ask(self, question: str, *, system: str | None = None, max_new_tokens: int = 96) -> str:
        """Return the model's answer to one question, with an optional system message."""
        return self.complete(question, system=system, max_new_tokens=max_new_tokens).text

    def complete(
        self, question: str, *, system: str | None = None, max_new_tokens: int = 96
    ) -> LocalCompletion:
        """Return the answer to one question with its token counts; the end token counts as output."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        inputs = self.tokenizer.apply_chat_template(  # input_ids: int64 [1, num_tokens]
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        output = self.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, temperature=None
        )
        answer_ids = output[0, inputs["input_ids"].shape[1] :]
        text = self.tokenizer.decode(answer_ids, skip_special_tokens=True).strip()
        return LocalCompletion(text, inputs["input_ids"].shape[1], len(answer_ids))
