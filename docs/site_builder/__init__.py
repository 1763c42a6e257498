"""Builds the documentation site: `python -m docs.site_builder`, from the folder of the repository."""
