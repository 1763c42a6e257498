"""ser_bench: compare predictors of emotion in speech, honestly and side by side."""

__version__ = "0.1.0"
