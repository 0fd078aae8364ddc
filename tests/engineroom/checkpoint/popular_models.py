"""The facts of the config.json of popular models: every key that could change the computation.

Left out are keys about tokens and software. REFUSED is what the refusal must name; without it the model is convertible.
The facts follow the files that were published on the Hugging Face Hub.
"""

from __future__ import annotations

from typing import Any

REFUSED = "refused"
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu"}
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "attention_bias": False,
}
DROPOUT = {"attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True}
LLAMA31 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA31 |= {"rope_type": "llama3"}


def sizes(
    hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocabulary: int, positions: int
) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


POPULAR_MODELS: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {
        **LLAMA, **sizes(4096, 11008, 32, 32, 32, 32000, 4096), "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16", "initializer_range": 0.02,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        **LLAMA, **DROPOUT, **sizes(4096, 14336, 32, 32, 8, 128256, 131072), "attention_bias": False, "mlp_bias": False,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, **LLAMA31},
        "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "meta-llama/Llama-3.2-1B-Instruct": {
        **LLAMA, **DROPOUT, **sizes(2048, 8192, 16, 32, 8, 128256, 131072), "head_dim": 64, "attention_bias": False,
        "mlp_bias": False, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 32.0, **LLAMA31}, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    },
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": {
        **LLAMA, **sizes(2048, 5632, 22, 32, 4, 32000, 2048), "attention_bias": False, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        **LLAMA, **sizes(576, 1536, 30, 9, 3, 49152, 8192), "attention_bias": False, "attention_dropout": 0.0,
        "is_llama_config": True, "mlp_bias": False, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    },
    "codellama/CodeLlama-7b-hf": {
        **LLAMA, **sizes(4096, 11008, 32, 32, 32, 32016, 16384), "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 1000000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "lmsys/vicuna-7b-v1.5-16k": {
        **LLAMA, **sizes(4096, 11008, 32, 32, 32, 32000, 4096), "max_sequence_length": 16384, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 4.0, "type": "linear"}, "tie_word_embeddings": False,
        "torch_dtype": "float16",
    },
    "deepseek-ai/deepseek-coder-6.7b-instruct": {
        **LLAMA, **sizes(4096, 11008, 32, 32, 32, 32256, 16384), "pretraining_tp": 1, "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 4.0, "type": "linear"}, "rope_theta": 100000, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "tiiuae/Falcon3-7B-Instruct": {
        **LLAMA, **DROPOUT, **sizes(3072, 23040, 28, 12, 4, 131072, 32768), "activation": "swiglu", "head_dim": 256,
        "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000042, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "mistralai/Mistral-7B-v0.1": {
        **MISTRAL, **sizes(4096, 14336, 32, 32, 8, 32000, 32768), "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16", REFUSED: "sliding_window",
    },
    "mistralai/Mistral-7B-Instruct-v0.3": {
        **MISTRAL, **DROPOUT, **sizes(4096, 14336, 32, 32, 8, 32768, 32768), "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "mistralai/Mistral-Nemo-Instruct-2407": {
        **MISTRAL, **DROPOUT, **sizes(5120, 14336, 40, 32, 8, 131072, 131072), "head_dim": 128, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "HuggingFaceH4/zephyr-7b-beta": {
        **MISTRAL, **sizes(4096, 14336, 32, 32, 8, 32000, 32768), "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16", REFUSED: "sliding_window",
    },
    "Qwen/Qwen2.5-0.5B-Instruct": {
        **QWEN2, **DROPOUT, **sizes(896, 4864, 24, 14, 2, 151936, 32768), "max_window_layers": 21,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "use_sliding_window": False,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **QWEN2, **DROPOUT, **sizes(3584, 18944, 28, 28, 4, 152064, 32768), "max_window_layers": 28,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_sliding_window": False,
    },
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": {
        **QWEN2, **DROPOUT, **sizes(3584, 18944, 28, 28, 4, 152064, 131072), "max_window_layers": 28,
        "rms_norm_eps": 1e-06, "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_mrope": False, "use_sliding_window": False,
    },
    "Qwen/Qwen2.5-7B-Instruct-1M": {
        **QWEN2, **DROPOUT, **sizes(3584, 18944, 28, 28, 4, 152064, 1010000), "max_window_layers": 28,
        "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192},
        "rms_norm_eps": 1e-05, "rope_theta": 10000000.0, "sliding_window": 32768, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "use_sliding_window": False, REFUSED: "dual_chunk_attention_config",
    },
    "Qwen/Qwen2.5-7B-Instruct-AWQ": {
        **QWEN2, **DROPOUT, **sizes(3584, 18944, 28, 28, 4, 152064, 32768), "max_window_layers": 28,
        "quantization_config": {"bits": 4, "group_size": 128, "quant_method": "awq", "version": "gemm"},
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False,
        "torch_dtype": "float16", "use_sliding_window": False, REFUSED: "quantization_config",
    },
    "Qwen/Qwen3-0.6B": {
        **QWEN3, **DROPOUT, **sizes(1024, 3072, 28, 16, 8, 151936, 40960), "head_dim": 128, "max_window_layers": 28,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_sliding_window": False,
    },
    "Qwen/Qwen3-8B": {
        **QWEN3, **DROPOUT, **sizes(4096, 12288, 36, 32, 8, 151936, 40960), "head_dim": 128, "max_window_layers": 36,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_sliding_window": False,
    },
    "Qwen/Qwen3-30B-A3B": {
        **QWEN3, **DROPOUT, **sizes(2048, 6144, 48, 32, 4, 151936, 40960), "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe", "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, REFUSED: "architecture",
    },
    "NousResearch/Yarn-Llama-2-7b-128k": {
        **LLAMA, **sizes(4096, 11008, 32, 32, 32, 32000, 131072), "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 4096, "type": "yarn", "finetuned": True},
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", REFUSED: "rope_scaling",
    },
    "google/gemma-2-2b-it": {
        **sizes(2304, 9216, 26, 8, 4, 256000, 8192), "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 256, "rms_norm_eps": 1e-06,
        "hidden_act": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256, "sliding_window": 4096,
        REFUSED: "architecture",
    },
    "microsoft/Phi-3-mini-4k-instruct": {
        **sizes(3072, 8192, 32, 32, 32, 32064, 4096), "architectures": ["Phi3ForCausalLM"], "model_type": "phi3",
        "hidden_act": "silu", "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "rope_scaling": None, "sliding_window": 2047, "tie_word_embeddings": False, REFUSED: "architecture",
    },
}  # fmt: skip
