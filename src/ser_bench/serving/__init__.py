"""An HTTP server for trained predictors: requests, limits, batches, streams and metrics."""
