"""OpenAI's HTTP API before what generates tokens: the engine of lesson 06, or Triton in lesson 10."""
