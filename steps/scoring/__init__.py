"""What steps.score is made of: reading hypotheses, error counts, translation metrics, resampling."""
