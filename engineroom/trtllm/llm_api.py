"""TensorRT-LLM 1.2.1's LLM API on an engine of trtllm-build: static batching, then in-flight batching.

Run `python -m engineroom.trtllm.llm_api ENGINE TOKENIZER` inside NVIDIA's container. From 1.0 to 1.2.1 the class that
loads engines is that of `_tensorrt_engine`; `tensorrt_llm.LLM` is the PyTorch backend.
"""

from __future__ import annotations

import sys
import time


def main(engine: str, tokenizer: str) -> None:
    from tensorrt_llm import SamplingParams
    from tensorrt_llm._tensorrt_engine import LLM
    from tensorrt_llm.llmapi import CapacitySchedulerPolicy, KvCacheConfig, SchedulerConfig

    prompts = [f"What is {term}?" for term in ("TTFT", "goodput", "the KV cache", "prefill")] * 8
    params = [SamplingParams(max_tokens=8 + 6 * index, ignore_eos=True) for index in range(len(prompts))]
    for policy in (CapacitySchedulerPolicy.STATIC_BATCH, CapacitySchedulerPolicy.GUARANTEED_NO_EVICT):
        llm = LLM(
            model=engine,
            tokenizer=tokenizer,
            kv_cache_config=KvCacheConfig(free_gpu_memory_fraction=0.4),
            scheduler_config=SchedulerConfig(capacity_scheduler_policy=policy),
        )
        llm.generate(prompts[:1], params[:1])
        start = time.perf_counter()
        results = llm.generate(prompts, params)
        seconds = time.perf_counter() - start
        tokens = sum(len(result.outputs[0].token_ids) for result in results)
        print(f"{policy.value}: {tokens / seconds:.0f} tokens/s")
        llm.shutdown()


if __name__ == "__main__":  # the LLM API starts processes that import this file
    main(*sys.argv[1:])
