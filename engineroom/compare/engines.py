"""The engines of a comparison. Each loads a model and answers batches of prompts: offline, greedy, no stop token.

All have the same prompts, dtype, number of threads, size of the KV cache and, on a CPU, the cores that they are bound
to; none reuses prefixes. They differ in design: `transformers` batches statically, the others in flight. `vllm`
and `aot` schedule in Python, `openvino` in C++. `eager` is `aot` without the compiler, without CUDA graphs and, on a
CPU, with PyTorch's own operators in place of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch

from engineroom.compare.openvino import OpenVinoEngine
from engineroom.compare.settings import EngineSettings, TokenIds
from engineroom.engine.directory import EngineDir
from engineroom.engine.kernels.cpu import unpack
from engineroom.engine.model import Generation, meta_decoder
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ModelRunner
from engineroom.engine.runtime.sampling import SamplingParams


class OfflineEngine(Protocol):
    def generate(self, prompts: TokenIds, max_tokens: int) -> TokenIds:
        """One answer of `max_tokens` tokens for each prompt."""
        ...


class AotEngine:
    """Our engine."""

    executor_class: type[Executor] = Executor

    def __init__(self, settings: EngineSettings) -> None:
        kv_cache = KvCacheConfig(max_tokens=settings.kv_cache_tokens, enable_block_reuse=False)
        self.executor = self.executor_class(settings.engine_dir, kv_cache)

    def generate(self, prompts: TokenIds, max_tokens: int) -> TokenIds:
        return self.executor.generate(prompts, SamplingParams(max_tokens=max_tokens))


class NoCudaGraphsRunner(ModelRunner):
    use_cuda_graphs = False


class NoCudaGraphsExecutor(Executor):
    model_runner_class = NoCudaGraphsRunner


class AotEngineWithoutCudaGraphs(AotEngine):
    """The host launches every kernel by itself; on a CPU the same as `aot`."""

    executor_class = NoCudaGraphsExecutor


class EagerGraph:
    """The interface of AOTInductor's loader for one graph, with the decoder itself behind it."""

    def __init__(self, engine: EngineDir, name: str) -> None:
        self.decoder = meta_decoder(engine.model)
        self.decoder.inv_freq = engine.model.inverse_frequencies()  # float32 [head_size / 2]
        self.graph = self.decoder if name == "context" else Generation(self.decoder)

    def get_constant_fqns(self) -> list[str]:
        return list(self.decoder.state_dict())

    def load_constants(self, tensors: dict[str, torch.Tensor], *_: bool) -> None:
        """Takes over the tensors; those that are packed for our CPU kernels are unpacked."""
        num_rows = {name: parameter.shape[0] for name, parameter in self.decoder.state_dict().items()}
        unpacked = {
            name: unpack(tensor)[: num_rows[name]] if tensor.dim() == 3 else tensor
            for name, tensor in tensors.items()
        }
        self.decoder.load_state_dict(unpacked, assign=True)
        self.decoder.inv_freq = self.decoder.inv_freq.to(self.decoder.lm_head.weight.device)

    def boxed_run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """`inputs` are those of the graph, then the key caches and the value caches of all layers."""
        num_layers = self.decoder.model.num_hidden_layers
        graph_inputs = inputs[: -2 * num_layers]
        k_caches, v_caches = inputs[-2 * num_layers : -num_layers], inputs[-num_layers:]
        with torch.inference_mode():
            return list(self.graph(*graph_inputs, k_caches, v_caches))


class EagerRunner(NoCudaGraphsRunner):
    def load_graph(self, name: str) -> Any:
        return EagerGraph(self.engine, name)


class EagerExecutor(Executor):
    model_runner_class = EagerRunner


class EagerEngine(AotEngine):
    executor_class = EagerExecutor


class TransformersEngine:
    def __init__(self, settings: EngineSettings) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        dtype = getattr(torch, settings.dtype)
        self.model: Any  # transformers' annotations of `to` and `generate` do not fit its own models
        if settings.has_random_weights:
            with torch.device(settings.device):
                config = AutoConfig.from_pretrained(settings.model_dir)
                self.model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        else:
            self.model = AutoModelForCausalLM.from_pretrained(settings.model_dir, dtype=dtype)
            self.model.to(settings.device)
        self.model.generation_config.eos_token_id = None

    def generate(self, prompts: TokenIds, max_tokens: int) -> TokenIds:
        token_ids = torch.tensor(prompts, device=self.model.device)  # [num_prompts, prompt_len]
        outputs = self.model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            pad_token_id=0,
        )  # [num_prompts, prompt_len + max_tokens]
        return outputs[:, token_ids.shape[1] :].tolist()


class VllmEngine:
    """vLLM's `LLM` class. FlashInfer's sampler is off because it would have to be compiled on this machine."""

    def __init__(self, settings: EngineSettings) -> None:
        environment = {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, settings.cores)),
        }
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        options: dict[str, Any] = {
            "dtype": settings.dtype,
            "load_format": "dummy" if settings.has_random_weights else "auto",
            "skip_tokenizer_init": True,
            "enable_prefix_caching": False,
            "max_num_seqs": settings.max_batch_size,
            "max_model_len": settings.max_seq_len,
            "max_num_batched_tokens": max(settings.max_num_tokens, settings.max_seq_len),
            "gpu_memory_utilization": 0.4,
            "enforce_eager": settings.device == "cpu",
            "disable_log_stats": True,
        }
        self.llm = LLM(str(settings.model_dir), **options)

    def generate(self, prompts: TokenIds, max_tokens: int) -> TokenIds:
        from vllm import SamplingParams as VllmSamplingParams
        from vllm import TokensPrompt

        params = VllmSamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        token_prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
        outputs = self.llm.generate(token_prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


ENGINES: dict[str, Callable[[EngineSettings], OfflineEngine]] = {
    "aot": AotEngine,
    "vllm": VllmEngine,
    "aot_without_cuda_graphs": AotEngineWithoutCudaGraphs,
    "eager": EagerEngine,
    "transformers": TransformersEngine,
    "openvino": OpenVinoEngine,
}
