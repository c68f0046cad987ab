"""Reports, figures and plots of scores and answers."""
