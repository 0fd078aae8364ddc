"""Train the course model and its draft model: `python -m tools.training.train --work build/model`.

One command does all: tokenizer, data, both models. The seed is fixed and the data depend on
nothing but the seed, so a second run differs only by the GPU's order of additions.
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
PEAK_RATE = {"course": 2e-3, "draft": 3e-3}
WARMUP = 300
PROMPT_WEIGHT = 0.1  # tokens of the prompt count this much, tokens of the answer fully
LOG_EVERY = 50


def optimizer_of(model: LlamaForCausalLM, rate: float) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=torch.cuda.is_available())


def on_device(array: np.ndarray, device: str) -> torch.Tensor:
    """The array on the device; on a GPU the copy does not wait for earlier work."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to zero."""
    warm = min(WARMUP, steps // 10 + 1)
    return (
        (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
    )


def fit(
    name: str, corpus: Corpus, steps: int, tokens: int, device: str
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train one model from scratch. Returns it in float32 and the log of its run."""
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    config = llama_config(name)
    config._attn_implementation = "packed"
    model = LlamaForCausalLM(config).to(device)
    optimizer = optimizer_of(model, PEAK_RATE[name])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
    loss_of = torch.compile(packed_loss, dynamic=False) if device == "cuda" else packed_loss
    curve: list[tuple[int, float]] = []
    started = time.monotonic()
    for step, batch in zip(range(steps), batches(corpus, tokens, PROMPT_WEIGHT, SEED), strict=False):
        arrays = (batch.ids, batch.positions, batch.labels, batch.weights, batch.bounds)
        tensors = [on_device(array, device) for array in arrays]
        loss = loss_of(model, *tensors)
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
        "peak_rate": PEAK_RATE[name],
        "seconds": round(seconds, 1),
    }
    return model, log | {"curve": curve, "parameters": sum(p.numel() for p in model.parameters())}


def save(model: LlamaForCausalLM, name: str, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Hugging Face folder with bfloat16 weights."""
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


def certificate() -> dict[str, Any]:
    """Where and when this run happens, and the command that repeats it."""
    here = machine()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    command = shlex.join(["python", "-m", "tools.training.train", *sys.argv[1:]])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    origin = {"started": now, "command": command, "commit": commit()}
    return origin | {"machine": here.short(), "versions": versions}


def main(
    work: Annotated[Path, typer.Option(help="folder for the results")] = Path("build/model"),
    only: Annotated[str, typer.Option(help="course, draft, or both")] = "both",
    items: Annotated[int, typer.Option(help="training documents")] = 4_000_000,
    steps: Annotated[int, typer.Option(help="steps of the course model")] = 12_000,
    draft_steps: Annotated[int, typer.Option(help="steps of the draft model")] = 8_000,
    tokens: Annotated[int, typer.Option(help="tokens a step")] = 65_536,
) -> None:
    """Train and save; the log is `training.json` beside the weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    origin = certificate()
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
        write_json(work / name / "training.json", origin | facts | log)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
