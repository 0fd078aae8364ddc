"""The engines that are compared. Each loads a model and answers batches of prompts: offline, greedy, no stop token.

Equal for all: prompts, dtype, number of threads and, on a CPU, the cores they are bound to; room for the KV cache, no
reuse of prefixes between requests. What is not equal is what each engine is: `transformers` batches statically, the
others in flight; `vllm` and `aot` schedule in Python, `openvino` in C++; `eager` is `aot` without the compiler and CUDA
graphs, and on a CPU by PyTorch's own operators.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch

from engineroom.checkpoint import frequencies
from engineroom.compare.settings import Job, Prompts
from engineroom.compare.openvino import OpenVino
from engineroom.engine.directory import EngineDir
from engineroom.engine.kernels.cpu import unpack
from engineroom.engine.model import Decoder, Generation, skeleton
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import Graphs
from engineroom.engine.runtime.sampling import SamplingParams


class Engine(Protocol):
    def run(self, prompts: Prompts, max_tokens: int) -> Prompts:
        """One answer of `max_tokens` tokens for each prompt."""


class Aot:
    def __init__(self, job: Job, executor: type[Executor] = Executor) -> None:
        self.executor = executor(
            job.engine, KvCacheConfig(max_tokens=job.kv_tokens, enable_block_reuse=False)
        )

    def run(self, prompts: Prompts, max_tokens: int) -> Prompts:
        return self.executor.generate(prompts, SamplingParams(max_tokens=max_tokens))


class Uncompiled:
    """What AOTInductor's loader does with one graph, done by the decoder itself."""

    def __init__(self, engine: EngineDir, graph: str) -> None:
        self.decoder: Decoder = skeleton(engine.model, engine.pretrained)
        base, scaling = engine.pretrained["rotary_base"], engine.pretrained.get("rotary_scaling")
        self.decoder.inv_freq = frequencies(engine.model.head_size, base, scaling)
        self.decoder.context = graph == "context"
        self.graph = self.decoder if self.decoder.context else Generation(self.decoder)

    def get_constant_fqns(self) -> list[str]:
        return list(self.decoder.state_dict())

    def load_constants(self, values: dict[str, torch.Tensor], *_: bool) -> None:
        shapes = {name: wanted.shape for name, wanted in self.decoder.state_dict().items()}
        for name, value in values.items():
            if value.dim() == 3:
                values[name] = unpack(value)[: shapes[name][0]]
        self.decoder.load_state_dict(values, assign=True)
        self.decoder.inv_freq = self.decoder.inv_freq.to(self.decoder.lm_head.weight.device)

    def boxed_run(self, inputs: list[Any]) -> list[torch.Tensor]:
        layers = self.decoder.model.num_hidden_layers
        head, keys, values = inputs[: -2 * layers], inputs[-2 * layers : -layers], inputs[-layers:]
        with torch.inference_mode():
            return list(self.graph(*head, keys, values))


class LaunchedGraphs(Graphs):
    cuda_graphs = False


class LaunchedExecutor(Executor):
    graphs_class = LaunchedGraphs


class Launched(Aot):
    """Every kernel is launched by the host, as without CUDA graphs; on a CPU the same as `aot`."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, LaunchedExecutor)


class EagerGraphs(Graphs):
    cuda_graphs = False

    def load_code(self, name: str) -> Any:
        return Uncompiled(self.engine, name)


class EagerExecutor(Executor):
    graphs_class = EagerGraphs


class Eager(Aot):
    def __init__(self, job: Job) -> None:
        super().__init__(job, EagerExecutor)


class Transformers:
    def __init__(self, job: Job) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM

        dtype = getattr(torch, job.dtype)
        if job.random:
            with torch.device(job.device):
                config = AutoConfig.from_pretrained(job.model)
                self.model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        else:
            self.model = AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).to(job.device)
        self.model.generation_config.eos_token_id = None

    def run(self, prompts: Prompts, max_tokens: int) -> Prompts:
        given = torch.tensor(prompts, device=self.model.device)
        options = {"max_new_tokens": max_tokens, "do_sample": False, "pad_token_id": 0}
        made = self.model.generate(given, attention_mask=torch.ones_like(given), **options)
        return made[:, given.shape[1] :].tolist()


class Vllm:
    """vLLM's offline `LLM`; its sampler of FlashInfer is off, as that must be compiled on the machine."""

    def __init__(self, job: Job) -> None:
        settings = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        settings |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
        settings |= {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, job.cores))}
        for name, value in settings.items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        self.llm = LLM(
            str(job.model), dtype=job.dtype, load_format="dummy" if job.random else "auto", skip_tokenizer_init=True,
            enable_prefix_caching=False, max_num_seqs=job.max_batch_size, max_model_len=job.max_seq_len,
            max_num_batched_tokens=max(job.max_num_tokens, job.max_seq_len), gpu_memory_utilization=0.4,
            enforce_eager=job.device == "cpu", disable_log_stats=True,
        )  # fmt: skip

    def run(self, prompts: Prompts, max_tokens: int) -> Prompts:
        from vllm import SamplingParams as Params

        params = Params(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        given = [{"prompt_token_ids": prompt} for prompt in prompts]
        return [list(one.outputs[0].token_ids) for one in self.llm.generate(given, params, use_tqdm=False)]


ENGINES: dict[str, Callable[[Job], Engine]] = {
    "aot": Aot,
    "vllm": Vllm,
    "aot_without_cuda_graphs": Launched,
    "eager": Eager,
    "transformers": Transformers,
    "openvino": OpenVino,
}
