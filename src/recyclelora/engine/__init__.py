"""Training and scoring, whatever the adapter: loop, schedule, optimizer, checkpoints, evaluation."""
