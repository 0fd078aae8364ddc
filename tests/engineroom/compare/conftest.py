"""The fixtures of tests/engineroom/triton, for the tests of its overhead."""

from tests.engineroom.triton.conftest import checkpoint, engine, repository, start_triton, triton

__all__ = ["checkpoint", "engine", "repository", "start_triton", "triton"]
