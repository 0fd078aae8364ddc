"""Clients that other people wrote: lm-eval's log-likelihoods and generated texts, and GuideLLM's load."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engineroom.checkpoint import Checkpoint, ShardedModel
from engineroom.kit.process import Server
from engineroom.openai.text import Vocabulary
from tests.engineroom.engine.conftest import COURSE

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / ".venv" / "clients" / "bin"
SUMS = [(12, 30), (5, 6), (20, 11)]
TASK = {"dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}", "target_delimiter": ""}
TASKS: dict[str, dict[str, Any]] = {
    "sums_choice": {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    },
    "sums_text": {
        "output_type": "generate_until",
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def run(folder: Path, command: str, *options: str) -> None:
    """Run a command of .venv/clients without a network; its caches are in `folder`."""
    program = CLIENTS / command
    assert program.exists(), f"{command} is not installed. Install it with `python3 bootstrap.py --clients`."
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "NO_PROXY": "127.0.0.1"}
    result = subprocess.run(
        [str(program), *options], capture_output=True, text=True, timeout=300, cwd=folder, env=environment
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def write_tasks(folder: Path) -> None:
    """The two tasks, and their data: questions of the course model's own form."""
    documents = []
    for a, b in SUMS:
        choices = [f"{a} + {b} = {value}" for value in (a + b, a + b + 1)]
        question = f"<|user|>What is {a} + {b}?<|end|><|assistant|>"
        documents.append(json.dumps({"question": question, "choices": choices, "label": 0}))
    (folder / "sums.jsonl").write_text("\n".join(documents))
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}}}
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(
            json.dumps({"task": name} | TASK | data | task)
        )  # YAML reads JSON


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    [path] = folder.rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.timeout(400)
def test_lm_eval(server: Server, tmp_path: Path, checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    """Its log-likelihoods are those of the reference model, and its texts are the right sums."""
    write_tasks(tmp_path)
    model = f"model=course,base_url={server.url}/v1/completions,tokenizer={COURSE},max_length=256"
    options = ["--model", "local-completions", "--model_args", model, "--tasks", ",".join(TASKS)]
    options += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "results"), "--log_samples"]
    run(tmp_path, "lm_eval", "run", *options)
    reference = ShardedModel(checkpoint)
    for sample in samples(tmp_path, "sums_choice"):
        question = vocabulary.encode(sample["doc"]["question"])
        for choice, [[loglikelihood, is_greedy]] in zip(
            sample["doc"]["choices"], sample["resps"], strict=True
        ):
            token_ids = vocabulary.encode(sample["doc"]["question"] + choice)
            logprobs = reference.logits(token_ids).log_softmax(-1)  # [num_tokens, vocab_size]
            answer = list(enumerate(token_ids))[len(question) :]
            expected = [float(logprobs[position - 1, token_id]) for position, token_id in answer]
            likeliest = [int(logprobs[position - 1].argmax()) for position, _ in answer]
            assert float(loglikelihood) == pytest.approx(sum(expected), abs=1e-2)
            assert (str(is_greedy) == "True") == (likeliest == token_ids[len(question) :])
    texts = [sample["resps"][0][0] for sample in samples(tmp_path, "sums_text")]
    assert texts == [f"{a} + {b} = {a + b}" for a, b in SUMS]


@pytest.mark.timeout(400)
def test_guidellm(server: Server, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run(
        tmp_path, "guidellm", "run", "--disable-console",
        "--backend", f"kind=openai_http,target={server.url},model=course",
        "--profile", "kind=concurrent,streams=2",
        "--constraint", "kind=max_requests,count=6",
        "--tokenizer", f"kind=huggingface_auto,model={COURSE}",
        "--data", "kind=synthetic_text,prompt_tokens=24,output_tokens=8",
        "--output", f"kind=json,path={report}",
    )  # fmt: skip
    [benchmark] = json.loads(report.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"], totals["incomplete"]) == (6, 0, 0)
    tokens = [request["output_tokens"] for request in benchmark["requests"]["successful"]]
    assert tokens == [8] * 6
