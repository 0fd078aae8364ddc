"""A record in words: values with three digits and a unit that people say, the spread, and the origin as a sentence."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engineroom.kit.record import Record, Summary

DIGITS = 3


def as_text(record: Record) -> str:
    """Return a record with one series as sentences, and one with several as a line for each."""
    series = record.summary
    if len(series) == 1:
        [summary] = series.values()
        return f"{record.what}: {_summary_text(summary, record.unit)}. {_origin(record)}"
    lines = [f"{name}: {_summary_text(summary, record.unit)}" for name, summary in series.items()]
    return "\n  ".join([f"{record.what}:", *lines, _origin(record)])


def as_html(record: Record) -> str:
    """Return a paragraph for a record with one series, and a table for one with several."""
    series = record.summary
    if len(series) == 1:
        return f"<p>{html.escape(as_text(record))}</p>"
    is_repeated = any(summary.n > 1 for summary in series.values())
    heading = ["", "median", "lowest to highest", "runs"] if is_repeated else ["", "value"]
    rows = [_row([name, *_cells(summary, record.unit)][: len(heading)]) for name, summary in series.items()]
    table = f"<table>{_row(heading, 'th')}{''.join(rows)}</table>"
    return f"<p>{html.escape(record.what)}</p>{table}<p>{html.escape(_origin(record))}</p>"


def value_text(value: float, unit: str) -> str:
    """Return a value with its unit: seconds below 1 as milliseconds, a ratio as a bare number."""
    return " ".join(filter(None, [_number(value * _factor(value, unit)), _unit(value, unit)]))


def _summary_text(summary: Summary, unit: str) -> str:
    value = value_text(summary.median, unit)
    return value if summary.n == 1 else f"{value}, the median of {summary.n} runs ({_range(summary, unit)})"


def _range(summary: Summary, unit: str) -> str:
    factor = _factor(summary.median, unit)
    return f"{_number(summary.min * factor)} to {_number(summary.max * factor)}"


def _cells(summary: Summary, unit: str) -> list[str]:
    spread = _range(summary, unit) if summary.n > 1 else ""
    return [value_text(summary.median, unit), spread, str(summary.n)]


def _number(value: float) -> str:
    return f"{float(f'{value:.{DIGITS}g}'):,.10g}"


def _factor(value: float, unit: str) -> float:
    return 1000 if _is_short(value, unit) else 1


def _unit(value: float, unit: str) -> str:
    if unit == "ratio":
        return ""
    if _is_short(value, unit):
        return "ms"
    return unit.replace("×", "times")


def _is_short(value: float, unit: str) -> bool:
    return unit == "s" and abs(value) < 1


def _row(cells: list[str], tag: str = "td") -> str:
    style = ' style="text-align:left"'
    return "<tr>" + "".join(f"<{tag}{style}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _origin(record: Record) -> str:
    if record.kind == "published":
        pages = sorted({f"{source.url} (read on {source.date})" for source in record.sources.values()})
        return f"Published: {', '.join(pages)}."
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    origin = f"Measured on {record.started:%Y-%m-%d} on {_device(record)}"
    return f"{origin}, with {versions}." if versions else f"{origin}; no versions were noted."


def _device(record: Record) -> str:
    """Return the first GPU of the machine that was measured, or its CPU."""
    facts = record.machine or {}
    gpus = facts.get("gpus")
    return (
        str(gpus[0])
        if isinstance(gpus, list) and gpus
        else f"{facts.get('cpu')} with {facts.get('cores')} cores"
    )
