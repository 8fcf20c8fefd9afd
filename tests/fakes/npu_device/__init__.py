"""A stand-in for CANN's `npu_device`, the adapter of TensorFlow 2: of `npu_device.compat.v1` what
tests/fakes/npu_bridge has.
"""
