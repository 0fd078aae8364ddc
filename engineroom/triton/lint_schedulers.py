"""The rules of a model's schedulers: batch sizes, queues and their priorities, and the response cache.

The rules are those of ValidateModelConfig in model_config_utils.cc of Triton's core, release 24.10.
"""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc.model_config_pb2 import ModelDynamicBatching, ModelQueuePolicy

from engineroom.triton.lint_sequences import check_sequences
from engineroom.triton.model_folder import ModelFolder


def check_schedulers(model: ModelFolder) -> Iterator[str]:
    """The problems of the dynamic and the sequence batcher, of which a model has one at most."""
    config = model.config
    dynamic, sequences = config.dynamic_batching, config.sequence_batching
    for size in [*dynamic.preferred_batch_size, *sequences.oldest.preferred_batch_size]:
        if not 0 < size <= config.max_batch_size:
            yield model.problem(
                "preferred_batch_size",
                f"preferred_batch_size {size} is {'above max_batch_size' if size > 0 else 'below 1; expected 1 to'} "
                f"{config.max_batch_size}. Give a size in that range.",
            )
    yield from check_priorities(model, dynamic)
    if dynamic.preserve_ordering:
        yield from check_ordering(model, dynamic)
    if config.HasField("sequence_batching"):
        yield from check_sequences(model)
    if config.response_cache.enable:
        yield from check_response_cache(model)


def check_priorities(model: ModelFolder, batching: ModelDynamicBatching) -> Iterator[str]:
    levels = batching.priority_levels
    if levels and not 1 <= batching.default_priority_level <= levels:
        message = f"default_priority_level is {batching.default_priority_level}; expected 1 to {levels}."
        yield model.problem("default_priority_level|priority_levels", message)
    for level in batching.priority_queue_policy:
        if levels and not 1 <= level <= levels:
            message = f"priority_queue_policy has the level {level}; expected 1 to {levels}."
            yield model.problem("priority_queue_policy", message)


def check_ordering(model: ModelFolder, batching: ModelDynamicBatching) -> Iterator[str]:
    """Responses in the order of their requests leave no room for priorities and for requests that are delayed."""
    if batching.priority_levels > 1:
        message = f"preserve_ordering allows one priority level, not {batching.priority_levels}. Remove one of them."
        yield model.problem("preserve_ordering", message)
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    if any(delays(policy) for policy in policies):
        message = "preserve_ordering does not go with the timeout_action DELAY. Write REJECT, or remove one of them."
        yield model.problem("timeout_action", message)


def delays(policy: ModelQueuePolicy) -> bool:
    return bool(policy.default_timeout_microseconds) and policy.timeout_action == ModelQueuePolicy.DELAY


def check_response_cache(model: ModelFolder) -> Iterator[str]:
    """The cache keeps one response for each request, and takes requests one by one."""
    config = model.config
    if config.HasField("sequence_batching"):
        message = "response_cache does not go with sequence_batching. Remove one of them."
        yield model.problem("response_cache", message)
    if config.model_transaction_policy.decoupled:
        message = "response_cache does not go with decoupled: true. Remove one of them."
        yield model.problem("response_cache", message)
