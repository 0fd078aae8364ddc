"""Train the course model and its draft model: `python -m tools.training.train --work build/model`.

One command trains everything: tokenizer, data, both models. The seed is fixed and the data depend on nothing else, so
a second run differs only in the order of the GPU's additions.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from engineroom.kit.machine import machine
from engineroom.kit.record import commit
from tools.training.config import llama_config, write_json, write_model_files
from tools.training.corpus import Corpus, batches, make_corpus
from tools.training.packed import packed_loss
from tools.training.tokenizer import train_tokenizer

SEED = 17
PEAK_LEARNING_RATE = {"course": 2e-3, "draft": 3e-3}
WARMUP = 300
PROMPT_WEIGHT = 0.1  # the weight of a prompt's token in the loss; an answer's token has 1
LOG_EVERY = 50


def make_optimizer(model: LlamaForCausalLM, learning_rate: float) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=torch.cuda.is_available())


def to_device(array: np.ndarray, device: str) -> torch.Tensor:
    """Copy an array to the device; a copy to a GPU does not wait for earlier work."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    warmup = min(WARMUP, steps // 10 + 1)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def fit(
    name: str, corpus: Corpus, steps: int, tokens: int, device: str
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train one model from scratch. Return it in float32, and the log of its run."""
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    config = llama_config(name)
    config._attn_implementation = "packed"
    model = LlamaForCausalLM(config)
    model.to(device)  # pyright: ignore[reportArgumentType]  transformers' wrapper of Module.to loses `self`
    optimizer = make_optimizer(model, PEAK_LEARNING_RATE[name])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    compute_loss = torch.compile(packed_loss, dynamic=False) if device == "cuda" else packed_loss
    curve: list[tuple[int, float]] = []
    started = time.monotonic()
    for step, batch in zip(range(steps), batches(corpus, tokens, PROMPT_WEIGHT, SEED), strict=False):
        arrays = (batch.ids, batch.positions, batch.labels, batch.weights, batch.bounds)
        loss = compute_loss(model, *(to_device(array, device) for array in arrays))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % LOG_EVERY == 0 or step == steps - 1:
            curve.append((step, round(loss.item(), 5)))
        if step % (LOG_EVERY * 20) == 0:
            print(f"{name} step {step} loss {curve[-1][1]} at {time.monotonic() - started:.0f} s", flush=True)
    seconds = time.monotonic() - started
    log = {
        "steps": steps,
        "tokens_per_step": tokens,
        "peak_rate": PEAK_LEARNING_RATE[name],
        "seconds": round(seconds, 1),
    }
    return model, log | {
        "curve": curve,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def save(model: LlamaForCausalLM, name: str, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face folder with bfloat16 weights; each file is replaced at once."""
    write_model_files(folder, name)
    tokenizer.save(str(folder / "tokenizer.json.tmp"))
    os.replace(folder / "tokenizer.json.tmp", folder / "tokenizer.json")
    weights = {
        key: value.detach().to("cpu", torch.bfloat16).contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors.tmp", metadata={"format": "pt"})
    (folder / "model.safetensors.tmp").chmod(0o644)
    os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")


def provenance() -> dict[str, Any]:
    """Where and when this run happens, and the command that repeats it."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    command = shlex.join(["python", "-m", "tools.training.train", *sys.argv[1:]])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "started": now,
        "command": command,
        "commit": commit(),
        "machine": machine().short(),
        "versions": versions,
    }


def main(
    work: Annotated[Path, typer.Option(help="the folder for the results")] = Path("build/model"),
    only: Annotated[str, typer.Option(help="course, draft, or both")] = "both",
    items: Annotated[int, typer.Option(help="training documents")] = 4_000_000,
    steps: Annotated[int, typer.Option(help="steps of the course model")] = 12_000,
    draft_steps: Annotated[int, typer.Option(help="steps of the draft model")] = 8_000,
    tokens: Annotated[int, typer.Option(help="tokens per step")] = 65_536,
) -> None:
    """Train and save; the log is `training.json` beside the weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = provenance()
    started = time.monotonic()
    tokenizer = train_tokenizer(SEED)
    corpus = make_corpus(tokenizer, SEED, items, workers=os.cpu_count() or 1)
    data = {"items": items, "tokens": len(corpus.ids), "seconds": round(time.monotonic() - started, 1)}
    print(f"data {json.dumps(data)}", flush=True)
    for name, count in (("course", steps), ("draft", draft_steps)):
        if only not in (name, "both"):
            continue
        model, log = fit(name, corpus, count, tokens, device)
        save(model, name, tokenizer, work / name)
        facts = {"model": name, "seed": SEED, "prompt_weight": PROMPT_WEIGHT, "data": data}
        write_json(work / name / "training.json", run | facts | log)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
