"""Fakes and fixtures that several test files use."""
