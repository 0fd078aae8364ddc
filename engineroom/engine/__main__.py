"""`engineroom build | refit | inspect | generate`: build, refit, inspect and try an engine, with the names of trtllm-build and run.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from engineroom import engine as builder
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import TOKENIZER, EngineError, open_engine, package, weights
from engineroom.kit.command import application, run

app = application(__doc__, no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="an engine directory")]
Out = Annotated[Path, typer.Option("--output_dir")]
Checkpoint = Annotated[Path, typer.Option("--checkpoint_dir", help="a TensorRT-LLM checkpoint of one rank")]
DEFAULT = BuildConfig()


@app.command()
def build(
    checkpoint_dir: Checkpoint,
    output_dir: Out = Path("engine_output"),
    max_batch_size: Annotated[int, typer.Option("--max_batch_size")] = DEFAULT.max_batch_size,
    max_input_len: Annotated[int, typer.Option("--max_input_len")] = DEFAULT.max_input_len,
    max_seq_len: Annotated[
        int | None, typer.Option("--max_seq_len", help="deduced from the model if not given")
    ] = None,
    max_num_tokens: Annotated[int, typer.Option("--max_num_tokens")] = int(DEFAULT.max_num_tokens or 0),
    max_beam_width: Annotated[int, typer.Option("--max_beam_width")] = DEFAULT.max_beam_width,
    kv_cache_type: Annotated[str, typer.Option("--kv_cache_type")] = DEFAULT.kv_cache_type,
    tokens_per_block: Annotated[int, typer.Option("--tokens_per_block")] = DEFAULT.tokens_per_block,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    tokenizer_dir: Annotated[
        Path | None, typer.Option("--tokenizer_dir", help="copied beside the engine")
    ] = None,
) -> None:
    """Compile a checkpoint for this machine."""
    config = BuildConfig(
        max_batch_size=max_batch_size,
        max_input_len=max_input_len,
        max_seq_len=max_seq_len,
        max_num_tokens=max_num_tokens,
        max_beam_width=max_beam_width,
        kv_cache_type=kv_cache_type,
        tokens_per_block=tokens_per_block,
    )
    began = time.perf_counter()
    builder.build(checkpoint_dir, output_dir, config, device=device, tokenizer_dir=tokenizer_dir)
    print(f"{output_dir}: built in {time.perf_counter() - began:.0f} s")


@app.command()
def refit(engine: Folder, checkpoint_dir: Checkpoint, output_dir: Out) -> None:
    """A copy of an engine with the weights of another checkpoint; nothing is compiled."""
    made = builder.refit(engine, checkpoint_dir, output_dir)
    print(f"{output_dir}: refitted in {made.manifest['seconds']['refit']:.2f} s")


@app.command()
def inspect(engine: Folder) -> None:
    """What an engine was built for, and how large its parts are."""
    made = open_engine(engine)
    print(
        "made for  ",
        ", ".join(
            f"{k} {v if isinstance(v, str) else ' '.join(v)}" for k, v in made.manifest["target"].items()
        ),
    )
    for name, value in vars(made.build).items():
        print(f"{name:<18} {value}")
    for part in (package(0), weights(0)):
        print(f"{part:<40} {(made.path / part).stat().st_size / 1e6:10.2f} MB")


@app.command()
def generate(
    engine: Folder,
    input_text: Annotated[str, typer.Option("--input_text")],
    max_output_len: Annotated[int, typer.Option("--max_output_len")] = 64,
) -> None:
    """One answer, greedy, from an engine that was built with --tokenizer_dir."""
    from transformers import AutoTokenizer

    from engineroom.engine.runtime.executor import Executor
    from engineroom.engine.runtime.sampling import SamplingParams

    made = open_engine(engine)
    if not (made.path / TOKENIZER).is_dir():
        raise EngineError(f"{engine} has no tokenizer. Build it with --tokenizer_dir.")
    tokenizer = AutoTokenizer.from_pretrained(made.path / TOKENIZER)
    chat = [{"role": "user", "content": input_text}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    params = SamplingParams(max_tokens=max_output_len, end_id=tokenizer.eos_token_id)
    answer = Executor(made).generate([prompt], params)[0]
    print(tokenizer.decode(answer, skip_special_tokens=True))


if __name__ == "__main__":
    run(app)
