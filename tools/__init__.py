"""What keeps the course: authoring, training of the course models, timing."""
