"""Write the two model cards and the loss picture from the training logs and the records.

Run `python -m tools.training.card`. Every number in the cards comes from a file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

from engineroom.kit.files import write_atomic
from engineroom.kit.record import Record, find
from engineroom.quality.data.item import UNKNOWN

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("course", "draft")


def load_json(name: str, file: str) -> dict[str, Any]:
    return json.loads((MODELS / name / file).read_text(encoding="utf-8"))


def smooth(values: list[float], width: int = 11) -> list[float]:
    """Running mean over `width` values, fewer at both ends."""
    half = width // 2
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def draw_loss(logs: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw the loss of both models by step, on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, log), colour in zip(logs.items(), ("tab:blue", "tab:orange"), strict=True):
        steps, losses = zip(*log["curve"], strict=True)
        axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(list(losses)), color=colour, label=f"{name} model")
    axes.set(xlabel="step", ylabel="weighted loss (nats per token)", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)
    temporary.replace(path)


def alternative_text(logs: dict[str, dict[str, Any]]) -> str:
    """What the picture shows, in words: each curve's first value, its value after a tenth of the steps, its last."""
    parts: list[str] = []
    for name, log in logs.items():
        losses = smooth([loss for _, loss in log["curve"]])
        start, early, end = log["curve"][0][1], losses[len(losses) // 10], losses[-1]
        parts.append(
            f"the {name} model's starts at {start:.1f}, is {early:.2f} after a tenth and ends at {end:.2f}"
        )
    return f"Training loss by step, falling steeply and then slowly: {'; '.join(parts)}."


def origin(record: Record) -> str:
    """The last line of a record's text: where, when and with which versions it was measured."""
    return str(record).splitlines()[-1].strip()


def sample_size(record: Record) -> str:
    """How many items were asked, in the record's own words, such as `200 held-out questions of each task`.

    Raises ValueError for a record that does not say.
    """
    match = re.search(r"\d+ held-out \w+ of each task", record.what)
    if match is None:
        raise ValueError(f"{record.name} does not say how many held-out items it is about: {record.what}")
    return match[0]


def median(record: Record, series: str = "value") -> float:
    """The median of one series, which is the value itself if there is one sample."""
    return record.summary[series].median


def worst(record: Record) -> float:
    """The smallest median of all tasks."""
    return min(median(record, task) for task in record.values)


def training_record(logs: dict[str, dict[str, Any]]) -> Record:
    """Seconds of each part of the training run, with the machine and the versions of that run."""
    course_log = logs["course"]
    seconds = {"data": [course_log["data"]["seconds"]]}
    seconds |= {name: [log["seconds"]] for name, log in logs.items()}
    provenance = {key: course_log[key] for key in ("started", "command", "commit", "machine", "versions")}
    what = "Time to train the course model and its draft model from nothing"
    return Record.measured(name="course-model-training", what=what, unit="s", samples=seconds, **provenance)


def facts(logs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Everything that both templates print."""
    training = find("course-model-training")
    return {
        "unknown": UNKNOWN,
        "alt": alternative_text(logs),
        "training": training,
        "minutes": sum(median(training, part) for part in training.values) / 60,
        "course": logs["course"],
        "quality": find("course-model-quality"),
        "perplexity": find("course-model-quality-perplexity"),
        "vllm": find("course-model-quality-vllm-cpu"),
        "draft_quality": find("draft-model-quality"),
        "draft_perplexity": find("draft-model-quality-perplexity"),
        "agreement": find("draft-model-agreement"),
        "origin": origin,
        "worst": worst,
        "sample_size": sample_size,
        "median": median,
    }


def cards() -> dict[str, str]:
    """The text of each model's README, by the model's name."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=False,  # noqa: S701  the output is Markdown
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    logs = {name: load_json(name, "training.json") for name in NAMES}
    common = facts(logs)
    return {
        name: environment.get_template(f"card_{name}.md.j2").render(
            common | {"log": logs[name], "config": load_json(name, "config.json")}
        )
        for name in NAMES
    }


def main() -> None:
    logs = {name: load_json(name, "training.json") for name in NAMES}
    training_record(logs).save()
    draw_loss(logs, MODELS / "course" / "loss.png")
    for name, text in cards().items():
        write_atomic(MODELS / name / "README.md", text)


if __name__ == "__main__":
    main()
