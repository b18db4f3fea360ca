"""Nothing about speech: options, stages, environment, files, checkpoints, devices, reports."""
