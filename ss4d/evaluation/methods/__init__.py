"""What can be judged: our models, baselines, and results that other methods left in a folder."""
