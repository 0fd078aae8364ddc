"""What servers report about themselves: Prometheus text read once or over time, and panels that show it."""

from engineroom.metrics.prometheus import Metrics, Sample, Watch, fetch, parse, scrape, total

__all__ = ["Metrics", "Sample", "Watch", "fetch", "parse", "scrape", "total"]
