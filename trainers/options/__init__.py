"""Command-line flags -> one frozen, validated Options.

Each option is declared once, as a field in data.py, learning.py or running.py, with the commands
that take it, whether a resumed run or a worker may differ in it, and whether it is a
hyperparameter. The flags, their checks, --help and the table in the README are derived from the
declaration.
"""

from trainers.options.exporting import EXPORT_FORMATS
from trainers.options.fields import FIELDS, ROOT, Options, absolute, device_id, differing_flags
from trainers.options.parsing import HelpRequested, markdown_table, parse
from trainers.options.running import PRECISION_MODES
from trainers.options.spec import Option, shown

__all__ = [
    'EXPORT_FORMATS',
    'FIELDS',
    'PRECISION_MODES',
    'ROOT',
    'HelpRequested',
    'Option',
    'Options',
    'absolute',
    'device_id',
    'differing_flags',
    'markdown_table',
    'parse',
    'shown',
]
