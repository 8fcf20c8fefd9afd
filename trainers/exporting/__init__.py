"""The inference of a checkpoint in files of other tools: one format a file.

`formats.FORMATS` has the formats by name, `runtimes.open_model` opens any of their files. Each file
is loaded by its own runtime, in another process, and compared with the checkpoint before it gets
its name (`parity`).
"""
