"""One request followed through all servers: OpenTelemetry spans, a small collector, and the waterfall of a trace.

Off by default. Nothing of OpenTelemetry is imported until `start_tracing` gets an address.
"""
