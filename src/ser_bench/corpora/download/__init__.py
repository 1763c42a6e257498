"""Download of corpora from their publishers, and verification of copies.

- `downloader`: `ser-bench corpora prepare`;
- `verification`: `ser-bench corpora verify`;
- `http_transfer`: checked HTTP downloads with retries;
- `git_lfs`: download of files that a repository stores in Git LFS.
"""
