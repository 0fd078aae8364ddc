"""Share the engine fixtures of tests/engineroom/engine with these tests."""

from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
