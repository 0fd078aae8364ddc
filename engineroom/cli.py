"""Engine Room: convert, build, serve, deploy and measure language models."""

from __future__ import annotations

from collections.abc import Mapping

from engineroom.kit.command import CommandTarget, run

ENGINE = "engineroom.engine.__main__"
LIBRARY = {
    "checkpoint": CommandTarget(
        "engineroom.checkpoint.__main__", "Convert, inspect and compare checkpoints."
    ),
    "build": CommandTarget(ENGINE, "Compile a checkpoint into an engine.", "build"),
    "refit": CommandTarget(ENGINE, "Give an engine the weights of another checkpoint.", "refit"),
    "inspect": CommandTarget(ENGINE, "Show what an engine was built for.", "inspect"),
    "generate": CommandTarget(ENGINE, "Answer one question with an engine.", "generate"),
    "serve": CommandTarget("engineroom.openai.__main__", "Serve an engine over OpenAI's HTTP API."),
    "triton": CommandTarget(
        "engineroom.triton.__main__", "Render, check and serve a Triton model repository."
    ),
    "trtllm": CommandTarget("engineroom.trtllm.__main__", "Check a command line of TensorRT-LLM's tools."),
    "vllm": CommandTarget("engineroom.vllm.__main__", "Measure vLLM on this machine."),
    "compare": CommandTarget("engineroom.compare.__main__", "Measure engines and servers side by side."),
    "quality": CommandTarget("engineroom.quality.__main__", "Score the answers of a model or a server."),
    "profile": CommandTarget(
        "engineroom.profile.__main__", "Measure ceilings; record and read traces of engines."
    ),
    "metrics": CommandTarget("engineroom.metrics.__main__", "Write the Grafana dashboard."),
}


def main(targets: Mapping[str, CommandTarget] = LIBRARY) -> None:
    """Run the command line of this process; Ctrl-C during the imports ends it as at any later time."""

    def command() -> None:
        from engineroom.kit.command_group import command_group

        command_group(targets, __doc__)()

    run(command)


if __name__ == "__main__":
    main()
