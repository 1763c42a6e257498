"""`model=crnn`: a small network over log-mel spectrograms, trained from scratch."""
