"""The real vLLM: answers, streams, error messages, and nothing left behind when its owner is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engineroom import load, metrics
from engineroom.kit import keeper
from engineroom.kit.process import Server
from tests.engineroom.kit.stubborn import alive, eventually

OWNER = """
import sys, time
from engineroom import load, metrics, vllm
server = vllm.serve("course", max_num_seqs=2)
print(server.pid, server.port, flush=True)
time.sleep(600)
"""


def test_it_answers_what_it_was_trained_on(vllm: Server) -> None:
    chat = [{"role": "user", "content": "What is 12 + 30?"}]
    completion = load.openai_client(vllm).chat.completions.create(
        model="course", messages=chat, max_tokens=32, temperature=0
    )
    assert "42" in completion.choices[0].message.content


def test_a_trace_has_one_time_for_each_token(vllm: Server) -> None:
    prompts = [
        [{"role": "user", "content": f"What is {term}?"}] for term in ("TTFT", "goodput", "a KV cache")
    ]
    traces = asyncio.run(load.fire(vllm, prompts, [8, 16, 24], ignore_eos=True))
    assert [len(trace.arrivals) for trace in traces] == [8, 16, 24]
    for trace in traces:
        assert trace.error is None
        assert trace.text
        assert trace.prompt_tokens and trace.prompt_tokens > 3
        assert trace.sent <= trace.arrivals[0]
        assert trace.arrivals == sorted(trace.arrivals)


def test_the_text_is_the_same_in_a_batch_and_alone(vllm: Server) -> None:
    prompts = [f"Copy: {word}" for word in ("engine", "room", "pages", "blocks")]
    together = asyncio.run(load.fire(vllm, prompts, 12, temperature=0))
    alone = [asyncio.run(load.fire(vllm, [prompt], 12, temperature=0))[0] for prompt in prompts]
    assert [trace.text for trace in together] == [trace.text for trace in alone]


@pytest.mark.parametrize(
    ("prompt", "body", "message"),
    [
        ("hello", {"model": "nobody"}, "does not exist"),
        ([5] * 3000, {}, "2048"),
        ("hello", {"temperature": -1}, "temperature"),
    ],
)
def test_a_refusal_is_noted_with_the_servers_words(
    vllm: Server, prompt: str | list[int], body: dict[str, object], message: str
) -> None:
    trace = asyncio.run(load.fire(vllm, [prompt], 8, **body))[0]
    assert trace.arrivals == []
    assert message in trace.error


def test_the_counters_agree_with_the_client(vllm: Server) -> None:
    before = metrics.scrape(vllm)
    with metrics.Watch(vllm, interval=0.02) as watch:
        traces = asyncio.run(load.fire(vllm, ["one two three"] * 8, 40, ignore_eos=True))
    change = metrics.scrape(vllm) - before
    assert change["generation_tokens_total"] == sum(len(trace.arrivals) for trace in traces) == 320
    assert max(sample["num_requests_running"] for sample in watch.samples) <= 4
    assert change["num_requests_running"] == 0


@pytest.mark.timeout(400)
def test_a_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    """SIGKILL to the process that started vLLM: no process, no port, no file of its own in /dev/shm, no TMPDIR."""
    env = os.environ | {"ENGINEROOM_HOME": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=env)
    pid, port = next(map(int, line.split()) for line in owner.stdout if line.split()[0].isdigit())
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(tree) >= 2
    [ledger] = (tmp_path / "servers").iterdir()
    assert eventually(lambda: keeper.shm_used_by(tree) <= set(ledger.read_text().splitlines()))
    shm = set(ledger.read_text().splitlines())
    folder = Path(tree[0].environ()["TMPDIR"])
    assert folder.is_dir()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert eventually(lambda: not any(alive(process.pid) for process in tree))
    sockets = psutil.net_connections("tcp")
    assert port not in {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr}
    assert eventually(lambda: not shm & keeper.shm_files() and not folder.exists())
