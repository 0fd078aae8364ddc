"""How long set-up, lessons and conversions take, kept as records."""
