"""Panels over the metrics of vLLM, the engine, Triton and the front door, for Grafana and for a notebook."""
