"""What this machine has and lacks for the next run: `python -m ss4d.doctor`."""
