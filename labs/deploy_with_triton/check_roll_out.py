"""What can be wrong with a roll-out under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labs.deploy_with_triton.attempts import RollOut
from labs.deploy_with_triton.requests import TritonResponse
from labs.kit.check import Mistake, require


def check_roll_out(attempt: RollOut, new_engine_path: str, old_token_ids: list[int]) -> None:
    """Raise Mistake unless a new version serves the new engine, alone, and no request failed.

    `old_token_ids`: the old engine's answer to the question that the users asked.
    """
    require(attempt.responses, "There are no responses: run the load first.")
    _check_errors(attempt.responses)
    latest = _check_versions(attempt, new_engine_path)
    _check_states(attempt.states, latest)
    if any(
        response.token_ids == old_token_ids for response in attempt.responses if response.version == latest
    ):
        raise Mistake(
            f"Version {latest} answers as the old engine does. The folder is new, but "
            f"{_why_old(attempt, new_engine_path)}",
            "`rollout.replace_engine(text, engine_dir)` gives the text of config.pbtxt with another engine. Write it "
            "before you load.",
        )


def still_waiting(attempt: RollOut) -> str:
    """The hint for a roll-out that did not return in time."""
    loaded = _loaded(attempt.states)
    saw = f"`roll_out` had not returned when the time was up. Triton then had {describe(attempt.states)}."
    if set(attempt.states) <= {"1"}:
        return f"{saw} No other version was ever loaded: what does your code wait for?"
    if loaded == {max(attempt.states, key=int): "READY"}:
        return (
            f"{saw} That is what you want: the new version is ready, the old one is gone. A version that is gone stays "
            f"in the list as UNAVAILABLE, so do not wait for it to leave the list."
        )
    return f"{saw} Which of these states does your loop wait for, and can it still come?"


def describe(states: Mapping[str, str]) -> str:
    """The versions with their states, as a phrase."""
    return ", ".join(f"version {version}, {state}" for version, state in states.items()) or "no version"


def _loaded(states: Mapping[str, str]) -> dict[str, str]:
    return {version: state for version, state in states.items() if state != "UNAVAILABLE"}


def _check_errors(responses: Sequence[TritonResponse]) -> None:
    errors = [" ".join(response.error.split()) for response in responses if response.error]
    if errors:
        raise Mistake(
            f"{len(errors)} of {len(responses)} requests failed; one got: “{errors[0][:90]}”. For a while no version "
            f"was there. Did you remove something before the new version was ready?",
            "No unload is needed. Load the new version beside the old one; Triton unloads the old one when its last "
            "request has ended.",
        )


def _check_versions(attempt: RollOut, new_engine_path: str) -> str:
    """Return the version that took over from version 1 under the load."""
    versions = {response.version for response in attempt.responses}
    require(
        "1" in versions,
        f"Only version {', '.join(sorted(versions))} answered. The load started after the roll-out: run the cell "
        f"again, it restores version 1.",
    )
    if versions == {"1"}:
        raise _only_old_version(attempt, new_engine_path)
    return max(versions, key=int)


def _only_old_version(attempt: RollOut, new_engine_path: str) -> Mistake:
    if max(attempt.versions, default=1) == 1:
        engine = ", with the new engine" if attempt.engine_path == new_engine_path else ""
        return Mistake(
            f"Version 1 answered every request. A version is a folder with a number: without a folder `2`, Triton "
            f"loads version 1 again{engine}, and there is no way back.",
            "Copy the folder `1` to `2` first, then change config.pbtxt, then load.",
        )
    return Mistake(
        f"The folder `{attempt.versions[-1]}` is there, but version 1 answered every request, and Triton had "
        f"{describe(_loaded(attempt.states))}: it was not told to load the model again.",
        'With explicit model control, nothing is loaded by itself: `await client.load_model("tensorrt_llm")`.',
    )


def _check_states(states: Mapping[str, str], latest: str) -> None:
    loaded = _loaded(states)
    require(
        loaded == {latest: "READY"},
        f"When `roll_out` returned, Triton had {describe(loaded)}. At the end of a roll-out the old version is gone, "
        f"and version {latest} is ready.",
        "`load_model` returns when the new one is ready; the old one may still finish its answers. Wait until its "
        "state is UNAVAILABLE.",
    )


def _why_old(attempt: RollOut, new_engine_path: str) -> str:
    if attempt.engine_path == new_engine_path:
        return "config.pbtxt named the old engine when Triton loaded it: change the file first, then load."
    if not attempt.engine_path:
        return "config.pbtxt names no engine any more."
    return "which engine does config.pbtxt name?"
