"""Engine Room's library: convert, build, serve, deploy and measure language models; it needs nothing of the course."""
