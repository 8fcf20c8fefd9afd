"""Several workers that train as one."""
