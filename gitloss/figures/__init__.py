"""Pictures from arrays: Matplotlib figures, their files, and the axes that pictures share."""

from gitloss.figures import confusion, encoding, plots, view

__all__ = ['confusion', 'encoding', 'plots', 'view']
