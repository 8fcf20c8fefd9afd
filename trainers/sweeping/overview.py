"""What a sweep writes into its own folder, and the baseline of its tables."""

from __future__ import annotations

from typing import Any, Sequence

from gitloss.errors import log
from trainers.sweeping import grid, pictures, results, tables


def baseline(text: str, cells: Sequence[grid.Cell]) -> dict[str, Any] | None:
    """{flag: plain value} of --baseline; None if there is none.

    Raises:
      ValueError: it names a flag or a value that is not in the grid, or the seed.
    """
    wanted = grid.read(text, '--baseline')
    found: dict[str, Any] = {}
    for name, values in wanted.items():
        known = {results.flag_text(cell.settings.get(name)): cell for cell in cells}
        if name == results.SEED or name not in cells[0].settings or len(values) != 1:
            raise ValueError(
                '--baseline: expected one value of each of some flags of --grid but the seed. '
                f'Received: {text}'
            )
        typed = [one for one in known if one == values[0] or _is_number(one, values[0])]
        if not typed:
            raise ValueError(
                f'--baseline: expected a value of {name} in --grid, {", ".join(known)}. '
                f'Received: {values[0]}'
            )
        found[name] = known[typed[0]].settings[name]
    return found or None


def _is_number(one: str, other: str) -> bool:
    """Whether two texts are the same number."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def write(
    folder: str,
    found: Sequence[results.CellResult],
    compared_with: dict[str, Any] | None,
    with_pictures: bool,
) -> None:
    """Writes the tables, and the pictures of the finished cells. What fails is a warning: the runs
    are what counts, and the next one tries again.
    """
    try:
        tables.write_tables(folder, found, compared_with)
        if with_pictures:
            pictures.write_pictures(folder, found)
    except OSError as error:
        log.warning('no tables: %s', error)
