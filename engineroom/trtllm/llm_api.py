"""TensorRT-LLM 1.2.1's LLM API on an engine of trtllm-build: static batching, then in flight.

`python -m engineroom.trtllm.llm_api ENGINE TOKENIZER` inside NVIDIA's container. From 1.0 to 1.2.1 the class that loads
engines is the one of `_tensorrt_engine`; `tensorrt_llm.LLM` is PyTorch's.
"""

from __future__ import annotations

import sys
import time


def main(engine: str, tokenizer: str) -> None:
    from tensorrt_llm import SamplingParams
    from tensorrt_llm._tensorrt_engine import LLM
    from tensorrt_llm.llmapi import CapacitySchedulerPolicy, KvCacheConfig, SchedulerConfig

    prompts = [f"What is {term}?" for term in ("TTFT", "goodput", "the KV cache", "prefill")] * 8
    params = [SamplingParams(max_tokens=8 + 6 * n, ignore_eos=True) for n in range(len(prompts))]
    for policy in (CapacitySchedulerPolicy.STATIC_BATCH, CapacitySchedulerPolicy.GUARANTEED_NO_EVICT):
        llm = LLM(
            model=engine,
            tokenizer=tokenizer,
            kv_cache_config=KvCacheConfig(free_gpu_memory_fraction=0.4),
            scheduler_config=SchedulerConfig(capacity_scheduler_policy=policy),
        )
        llm.generate(prompts[:1], params[:1])
        began = time.perf_counter()
        outputs = llm.generate(prompts, params)
        tokens = sum(len(one.outputs[0].token_ids) for one in outputs)
        print(f"{policy.value}: {tokens / (time.perf_counter() - began):.0f} tokens/s")
        llm.shutdown()


if __name__ == "__main__":  # the LLM API starts other processes, which import this file
    main(*sys.argv[1:])
