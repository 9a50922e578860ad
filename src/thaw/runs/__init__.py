"""The run directory: everything that reads or writes its files, and their names."""

RECORD_FILE, RECIPE_FILE = "run.json", "config.yaml"
METRICS_FILE, HISTORY_FILE, PREDICTIONS_FILE = "metrics.json", "history.csv", "predictions.csv"
SWEEP_FILE, SEARCH_FILE = "sweep.json", "search.json"  # in the directory of a sweep
REPORT_FILE, PROBE_FILE = "report.html", "probe.csv"
BEST_CHECKPOINT, LAST_CHECKPOINT = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
PLOTS_DIRECTORY, TENSORBOARD_DIRECTORY = "plots", "tensorboard"
