"""The device of a run: which one, and what its sessions need."""

from trainers.devices.choice import Device, choose, loss_scaled

__all__ = ['Device', 'choose', 'loss_scaled']
