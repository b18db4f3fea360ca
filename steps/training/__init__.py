"""The trainer: configuration, optimisers, schedules, the loop, validation, averaging, and what it writes down."""
