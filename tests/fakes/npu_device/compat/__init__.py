def enable_v1():
    """The real one switches TensorFlow 2 to graph mode for the adapter."""
