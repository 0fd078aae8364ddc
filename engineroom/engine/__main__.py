"""`engineroom build | refit | inspect | generate`, with the option names of trtllm-build and TensorRT-LLM's run.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from engineroom import engine as library
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import TOKENIZER, EngineError, open_engine
from engineroom.kit.command import application, run

app = application(__doc__, no_args_is_help=True)
EngineFolder = Annotated[Path, typer.Argument(help="an engine directory")]
OutputFolder = Annotated[Path, typer.Option("--output_dir", help="a new or an empty folder")]
CheckpointFolder = Annotated[
    Path, typer.Option("--checkpoint_dir", help="a TensorRT-LLM checkpoint of one rank")
]
DEFAULT = BuildConfig()


@app.command()
def build(
    checkpoint_dir: CheckpointFolder,
    output_dir: OutputFolder = Path("engine_output"),
    max_batch_size: Annotated[int, typer.Option("--max_batch_size")] = DEFAULT.max_batch_size,
    max_input_len: Annotated[int, typer.Option("--max_input_len")] = DEFAULT.max_input_len,
    max_seq_len: Annotated[
        int | None, typer.Option("--max_seq_len", help="deduced from the model if not given")
    ] = None,
    max_num_tokens: Annotated[int | None, typer.Option("--max_num_tokens")] = DEFAULT.max_num_tokens,
    max_beam_width: Annotated[int, typer.Option("--max_beam_width")] = DEFAULT.max_beam_width,
    kv_cache_type: Annotated[str, typer.Option("--kv_cache_type")] = DEFAULT.kv_cache_type,
    tokens_per_block: Annotated[int, typer.Option("--tokens_per_block")] = DEFAULT.tokens_per_block,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    tokenizer_dir: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer_dir", help="a Hugging Face folder; its tokenizer is copied into the engine"
        ),
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
    start = time.perf_counter()
    library.build(checkpoint_dir, output_dir, config, device=device, tokenizer_dir=tokenizer_dir)
    print(f"{output_dir}: built in {time.perf_counter() - start:.0f} s")


@app.command()
def refit(engine: EngineFolder, checkpoint_dir: CheckpointFolder, output_dir: OutputFolder) -> None:
    """Copy an engine and give the copy the weights of another checkpoint; nothing is compiled."""
    refitted = library.refit(engine, checkpoint_dir, output_dir)
    print(f"{output_dir}: refitted in {refitted.manifest['seconds']['refit']:.2f} s")


@app.command()
def inspect(engine: EngineFolder) -> None:
    """Show what an engine was built for, and the size of its files."""
    opened = open_engine(engine)
    target = (
        f"{name} {value if isinstance(value, str) else ' '.join(value)}"
        for name, value in opened.manifest["target"].items()
    )
    print("built for ", ", ".join(target))
    for name, value in vars(opened.limits).items():
        print(f"{name:<18} {value}")
    for file in (opened.package, opened.weights):
        print(f"{file.name:<40} {file.stat().st_size / 1e6:10.2f} MB")


@app.command()
def generate(
    engine: EngineFolder,
    input_text: Annotated[str, typer.Option("--input_text")],
    max_output_len: Annotated[int, typer.Option("--max_output_len")] = 64,
) -> None:
    """Answer one question, greedily, with an engine that was built with --tokenizer_dir."""
    from transformers import AutoTokenizer

    opened = open_engine(engine)
    if not (opened.path / TOKENIZER).is_dir():
        raise EngineError(f"{engine} has no tokenizer. Build it with --tokenizer_dir.")
    tokenizer = AutoTokenizer.from_pretrained(opened.path / TOKENIZER)
    chat = [{"role": "user", "content": input_text}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    params = library.SamplingParams(max_tokens=max_output_len, end_id=tokenizer.eos_token_id)
    output = library.Executor(opened).generate([prompt], params)[0]
    print(tokenizer.decode(output, skip_special_tokens=True))


if __name__ == "__main__":
    run(app)
