"""From predictions to figures: metrics, reports, pictures, statistics."""
