"""Pictures from arrays: Matplotlib figures, and the axes that the pictures of a run share."""

from gitloss.figures import plots, view

__all__ = ['plots', 'view']
