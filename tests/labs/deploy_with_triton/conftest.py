"""The Triton, the OpenAI frontend and the engine of tests/engineroom/triton, shared with these tests."""

from tests.engineroom.triton.conftest import checkpoint, engine, frontend, repository, start_triton, triton

__all__ = ["checkpoint", "engine", "frontend", "repository", "start_triton", "triton"]
