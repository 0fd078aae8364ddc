"""A record stores its facts, a changed file is refused, and the schema follows the model."""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engineroom.kit import record
from engineroom.kit.files import FolderError
from engineroom.kit.record import Record, RecordError, Source, records_folder

finite = st.floats(allow_nan=False, allow_infinity=False)
PAGE = Source(url="https://example.org/post", date=date(2026, 1, 2))


def example(**changes: object) -> Record:
    facts = {"name": "ttft", "what": "Time to the first token", "unit": "ms", "samples": [3.0, 1.0, 2.0]}
    return Record.measured(**{**facts, "command": "engineroom vllm measure", **changes})


def test_facts_are_filled_in() -> None:
    example_record = example()
    assert example_record.summary["value"] == (2.0, 1.0, 3.0, 3)
    assert example_record.machine["cores"] >= 1 and example_record.versions and example_record.started.tzinfo
    assert socket.gethostname() not in example_record.model_dump_json()
    sentences = "Time to the first token: 2 ms, the median of 3 runs (1 to 3). Measured on "
    assert str(example_record).startswith(f"{sentences}{example_record.started:%Y-%m-%d} on ")
    assert str(example_record) == repr(example_record)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(min_size=1), st.lists(finite, min_size=1), min_size=1, max_size=3))
def test_round_trip(tmp_path: Path, values: dict[str, list[float]]) -> None:
    saved = example(samples=values, machine={"cpu": "x"}, versions={}, commit=None)
    path = saved.save(tmp_path)
    loaded = Record.load(path)
    assert path.stat().st_mode & 0o777 == 0o644  # others may read it, although the temporary file was private
    assert loaded == saved and loaded.values == values
    name = next(iter(values))
    assert loaded.summary[name].median == statistics.median(values[name])
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["ttft.json"]


def test_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = example().save(tmp_path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        example(samples=[9.0]).save(tmp_path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["ttft.json"]


def test_tampering_is_refused(tmp_path: Path) -> None:
    path = example().save(tmp_path)
    for old, new in [('"unit": "ms"', '"unit": "s"'), ("3.0", "2.5")]:
        text = path.read_text()
        assert old in text
        (tmp_path / "other.json").write_text(text.replace(old, new))
        with pytest.raises(RecordError, match="changed after it was written"):
            Record.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("sha256"), "sha256"),
        (lambda facts: facts.pop("unit"), "unit"),
        (lambda facts: facts.update(kind="guessed"), "kind"),
        (lambda facts: facts.update(values={"value": ["fast"]}), "number"),
        (lambda facts: facts.update(host="mine"), "additional|extra|host"),
    ],
)
def test_malformed_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = example().save(tmp_path)
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))
    with pytest.raises(RecordError, match=rf"(?s)refused.*{message}"):
        Record.load(path)


def test_not_json_and_missing(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"name": ')
    with pytest.raises(RecordError, match="refused"):
        Record.load(tmp_path / "half.json")
    with pytest.raises(RecordError, match="no record"):
        Record.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": []},
        {"samples": {}},
        {"samples": [math.nan]},
        {"samples": [math.inf]},
        {"name": "Not A Name"},
        {"name": "../escape"},
        {"machine": None},
        {"what": ""},
    ],
)
def test_bad_facts_make_no_record(changes: dict) -> None:
    with pytest.raises(ValidationError):
        example(**changes)


def test_published_needs_a_source_for_each_series() -> None:
    facts = {"name": "post", "what": "Speed", "unit": "tokens/s", "values": {"a": [1.0], "b": [2.0]}}
    example_record = Record(kind="published", **facts, sources={"a": PAGE, "b": PAGE})
    assert "Published: https://example.org/post (read on 2026-01-02)" in str(example_record)
    with pytest.raises(ValidationError, match="needs a source"):
        Record(kind="published", **facts, sources={"a": PAGE})


def test_series_by_name() -> None:
    example_record = example(samples={"a": [1.0], "b": [2.0]})
    assert example_record.summary["b"].median == 2.0 and "a: 1 ms\n  b: 2 ms\n" in str(example_record)


def test_records_of_one_run_are_made_before_the_first_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved record changes the working tree, so a record created later would name a dirty commit."""
    monkeypatch.setattr(record, "commit", lambda: "abc-dirty" if any(tmp_path.glob("of-*")) else "abc")
    rows = [(end, f"the {end}", "s", {"value": [1.0]}) for end in ("one", "two")]
    assert len(record.save_records("of", rows, "make it", tmp_path)) == 2
    saved = [Record.load(tmp_path / f"of-{end}.json") for end in ("one", "two")]
    assert [(item.commit, item.command, item.what) for item in saved] == [
        ("abc", "make it", "the one"),
        ("abc", "make it", "the two"),
    ]


def test_the_command_line_of_a_record() -> None:
    line = record.command_line("vllm measure", "a model", "--users", 4, max_tokens=8, name="x")
    assert line == "engineroom vllm measure 'a model' --users 4 --max-tokens 8 --name x"


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record.find("gpu-prices", "published").unit == "USD/hour"
    with pytest.raises(RecordError, match=r"'gpu-price'. Existing records: gpu-prices"):
        record.find("gpu-price", "published")


@pytest.fixture
def outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library as a wheel installs it: no pyproject.toml beside the package."""
    monkeypatch.setattr(record, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_outside_a_checkout_records_are_in_the_current_folder(outside_a_checkout: Path) -> None:
    measured = example()
    assert measured.commit is None
    assert measured.save() == outside_a_checkout / "records" / "measured" / "ttft.json"
    assert record.find("ttft") == measured


def test_a_missing_folder_of_records_is_named(outside_a_checkout: Path) -> None:
    with pytest.raises(RecordError, match=r"'gpu-prices'.* no folder .*records/published.* checkout"):
        record.find("gpu-prices", "published")


def test_a_folder_that_cannot_be_created_is_named(outside_a_checkout: Path) -> None:
    (outside_a_checkout / "records").touch()
    with pytest.raises(FolderError, match=r"records/measured: Not a directory. Choose a folder"):
        example().save()


def test_schema_file_follows_the_model() -> None:
    assert (records_folder() / "schema.json").read_text() == record.schema(), "run engineroom records schema"


def test_every_committed_record_loads() -> None:
    paths = [path for kind in ("measured", "published") for path in (records_folder() / kind).glob("*.json")]
    assert paths
    for path in paths:
        loaded = Record.load(path)
        assert (loaded.name, loaded.kind) == (path.stem, path.parent.name)
