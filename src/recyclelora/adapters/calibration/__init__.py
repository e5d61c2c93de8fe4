"""The calibration pass: what a few images of the source tell about the inputs and gradients of every layer."""
