"""Pictures from arrays: Matplotlib figures, their encoding, and the axes that pictures share.

Matplotlib, whose import takes up to half a second, is imported when the first figure is drawn.
"""

from gitloss.figures import confusion, encoding, plots, view

__all__ = ['confusion', 'encoding', 'plots', 'view']
