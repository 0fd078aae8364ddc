"""Where the time of a step goes: ceilings of this machine, and traces of our engine and of vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from engineroom.kit.command import application, run
from engineroom.kit.record import RecordRow, command_line, require_records_folder, save_records
from engineroom.profile.ceilings import Ceilings

app = application(__doc__, no_args_is_help=True)
TraceFile = Annotated[Path, typer.Argument(help="a Chrome trace of torch.profiler, .json or .json.gz")]
Folder = Annotated[Path, typer.Option(help="folder for the trace")]
Workload = Annotated[str, typer.Option(help="streams x tokens in - tokens out")]
Steps = Annotated[int, typer.Option(min=1, help="steps to record")]
Skip = Annotated[int, typer.Option(min=0, help="steps before the recording")]
COLUMNS = ("calls", "total µs", "self µs", "longest µs", "gap µs")


@app.command()
def engine(
    engine_dir: Annotated[Path, typer.Argument(help="an engine directory")],
    out: Folder,
    workload: Workload = "4x32-16",
    steps: Steps = 8,
    skip: Skip = 0,
) -> None:
    """Record a trace of an engine while it serves a workload."""
    from engineroom.compare.workload import BatchWorkload
    from engineroom.profile.record import profile_engine

    print(profile_engine(engine_dir, BatchWorkload.parse(workload), steps, out, skip=skip))


@app.command()
def vllm(
    model: Annotated[str, typer.Argument(help="a model, or a shape without weights")],
    out: Folder,
    workload: Workload = "4x32-16",
    steps: Steps = 8,
    skip: Skip = 0,
) -> None:
    """Record a trace of vLLM's worker while vLLM serves a workload."""
    from engineroom.compare.workload import BatchWorkload
    from engineroom.profile.record import profile_vllm

    print(profile_vllm(model, BatchWorkload.parse(workload), steps, out, skip=skip))


@app.command("reduce")
def reduce_command(
    trace: TraceFile,
    out: Annotated[Path, typer.Option(help="the file to write, .json.gz")],
    first: Annotated[int, typer.Option(min=0, help="first step to keep")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="steps to keep")] = 4,
) -> None:
    """Keep a few steps of a trace, in a file below 50 kB that says where it was recorded."""
    from engineroom.profile.reduce import reduce_trace

    print(reduce_trace(trace, out, first=first, steps=steps))


@app.command()
def table(
    trace: TraceFile,
    within: Annotated[
        str | None, typer.Option(help="only inside ranges of this name, such as generation")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows to show")] = 30,
) -> None:
    """Show each operator, kernel and range of a trace with its calls and times, the longest self time first."""
    from engineroom.profile.table import trace_table
    from engineroom.profile.trace import read_trace

    all_rows = trace_table(read_trace(trace), within)
    print(f"{'name':<52} {'kind':<12} {COLUMNS[0]:>7}", *(f"{title:>12}" for title in COLUMNS[1:]))
    for row in all_rows[:rows]:
        times = (row.total_us, row.self_us, row.longest_us, row.gap_before_us)
        print(
            f"{row.name[:52]:<52} {row.category:<12} {row.calls:>7}", *(f"{time:>12,.1f}" for time in times)
        )
    if len(all_rows) > rows:
        print(f"and {len(all_rows) - rows} more rows: --rows {len(all_rows)} shows all")


@app.command()
def ceilings(
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="cuda where there is a GPU")] = None,
    name: Annotated[str, typer.Option(help="name of the records, such as ceilings-h200")] = "ceilings-here",
    out: Annotated[Path | None, typer.Option(help="also save records in this folder")] = None,
) -> None:
    """Measure how fast this machine reads memory, multiplies matrices and calls an operator."""
    from engineroom.profile.ceilings import measure_ceilings

    if out:
        require_records_folder(out)
    result = measure_ceilings(device)
    print(f"{result.device_name}, {result.num_threads} threads")
    print(f"{'read':<28} {result.read_bytes_per_s / 1e9:10,.1f} GB/s, of {result.buffer_bytes / 1e9:.1f} GB")
    for dtype, rate in result.operations_per_s.items():
        print(f"{'matrix product, ' + dtype:<28} {rate / 1e12:10,.3f} TFLOP/s")
    print(f"{'one operator call':<28} {result.operator_call_s * 1e6:10,.1f} µs")
    if out:
        command = command_line("profile ceilings", name=name, device=result.device, out=out)
        save_records(name, _ceiling_rows(result), command, out)


def _ceiling_rows(result: Ceilings) -> Iterator[RecordRow]:
    what = f"ceilings of {result.device_name}, each the median of several runs"
    rates = {dtype: [rate] for dtype, rate in result.operations_per_s.items()}
    yield "read", f"{what}: bytes read per second", "B/s", {"value": [result.read_bytes_per_s]}
    yield "rate", f"{what}: operations of a matrix product per second", "FLOP/s", rates
    yield "call", f"{what}: one operator call", "s", {"value": [result.operator_call_s]}


if __name__ == "__main__":
    run(app)
