"""The training: options, devices, checkpoints, the trainer and the commands."""
