"""One class per video, or several: loss, scores, metrics, predictions. Imports tasks.task, and reports for figures."""
