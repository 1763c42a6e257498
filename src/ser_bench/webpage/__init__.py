"""The page of `ser-bench app`: record a clip and see what each loaded predictor says about it."""
