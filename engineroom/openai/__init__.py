"""OpenAI's HTTP API over a backend that generates tokens: the engine of lesson 06, or Triton in lesson 10."""
