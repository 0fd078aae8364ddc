"""What servers report about themselves: Prometheus text read once or watched, and panels over it."""

from engineroom.metrics.prometheus import Metrics, Watch, scrape

__all__ = ["Metrics", "Watch", "scrape"]
