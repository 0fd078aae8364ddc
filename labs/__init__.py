"""The runnable code of the course, one folder a lab; see DESIGN in docs/maintainers.md."""
