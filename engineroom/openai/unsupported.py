"""Fields of OpenAI and vLLM that would change the response and that this server does not support.

They are refused by name unless their value changes nothing.
"""

from __future__ import annotations

from typing import Any

from engineroom.openai.fields import FieldError

NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logprob_token_ids": ([],),
    "prompt_logprobs": (),
    "prompt_embeds": (),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_special_tokens": (),
    "truncate_prompt_tokens": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "repetition_detection": (),
    "thinking_token_budget": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "audio": (),
    "web_search_options": (),
}


def check_supported(body: object) -> object:
    """`body` itself. Raises FieldError for a field that must not be ignored."""
    if isinstance(body, dict):
        for field, neutral_values in NEUTRAL_VALUES.items():
            value = body.get(field)
            if value is not None and value not in neutral_values:
                raise FieldError(field, "this server does not support it; leave it out.")
    return body
