"""How it is trained: options, devices, checkpoints, the trainer and its commands."""
