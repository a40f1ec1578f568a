"""Statistics of bounded size that the brain learns; they import nothing of the rest of the brain."""
