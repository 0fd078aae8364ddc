"""The engine of tests/engineroom/engine, for these tests once more."""

from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
