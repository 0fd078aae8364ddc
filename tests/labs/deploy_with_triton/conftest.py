"""The Triton, the front door and the engine of tests/engineroom/triton, for these tests once more."""

from tests.engineroom.triton.conftest import checkpoint, engine, front, repository, start, triton

__all__ = ["checkpoint", "engine", "front", "repository", "start", "triton"]
